// Finds the implementation of a device: the CPU's is linked, CUDA's is a plug-in that is opened when it is asked for.
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>

#include "base/device_memory.hpp"
#include "base/live_buffers.hpp"
#include "cpu/ops_cpu.hpp"
#include "infinilm/error.hpp"
#include "ops/cuda_plugin.hpp"
#include "ops/ops.hpp"

namespace infinilm {
namespace {

constexpr const char* kFileName = "libinfinilm_cuda.so";
constexpr const char* kVariable = "INFINILM_CUDA_PLUGIN";

// Beside the library (or program) that this code is part of.
std::filesystem::path default_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&default_path), &info) == 0 || !info.dli_fname)
    return kFileName;
  return std::filesystem::absolute(info.dli_fname).parent_path() / kFileName;
}

std::filesystem::path plugin_path() {
  const char* chosen = std::getenv(kVariable);
  if (chosen && *chosen) {
    const std::filesystem::path path = chosen;
    check<Error>(std::filesystem::exists(path), "there is no file ", quoted(path.string()),
                 ", which ", kVariable, " names");
    return std::filesystem::absolute(path);
  }
  const std::filesystem::path path = default_path();
  if (std::filesystem::exists(path)) return path;
  if (!INFINILM_WITH_CUDA) {
    throw Error(
        concat("this infinilm was built without CUDA; build it where nvcc is found "
               "(INFINILM_CUDA=ON says what is missing), or name a plug-in in ",
               kVariable));
  }
  throw Error(concat("the CUDA plug-in ", quoted(path.string()),
                     " is missing, though this infinilm was built with it; install it again"));
}

const CudaPlugin& open_plugin() {
  const std::filesystem::path path = plugin_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    throw Error(concat("the CUDA plug-in ", quoted(path.string()),
                       " cannot be loaded: ", reason ? reason : "no reason given"));
  }
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(library, kCudaPluginEntry));
  check<Error>(entry != nullptr, quoted(path.string()),
               " is no CUDA plug-in of infinilm: it has no symbol ", kCudaPluginEntry);
  const CudaPlugin* plugin = entry();
  check<Error>(plugin != nullptr && plugin->abi == INFINILM_PLUGIN_ABI, "the CUDA plug-in ",
               quoted(path.string()), " belongs to another build of infinilm (expected ABI ",
               INFINILM_PLUGIN_ABI, ", found ", plugin ? plugin->abi : 0,
               "); install both together");
  plugin->connect(&live_buffer_count());
  return *plugin;
}

// What has been opened. Never destroyed: a model may outlive the program's static objects.
struct Opened {
  std::mutex mutex;
  const CudaPlugin* plugin = nullptr;
  std::string libraries;  // the folder of set_cuda_library_path
  std::map<int, std::shared_ptr<Ops>> cuda;
};
Opened& opened() {
  static auto* all = new Opened;
  return *all;
}

const CudaPlugin& plugin_of(Opened& all) {
  if (!all.plugin) {
    all.plugin = &open_plugin();
    all.plugin->look_for_libraries_in(all.libraries);
  }
  return *all.plugin;
}

std::shared_ptr<Ops> cuda_ops(int index) {
  Opened& all = opened();
  const std::lock_guard lock(all.mutex);
  std::shared_ptr<Ops>& ops = all.cuda[index];
  if (ops) return ops;
  try {
    ops = plugin_of(all).open(index);
  } catch (const Error& reason) {
    throw Error(concat("there is no device \"cuda:", index, "\": ", reason.what()));
  }
  return ops;
}

}  // namespace

const CudaPlugin& cuda_plugin() {
  Opened& all = opened();
  const std::lock_guard lock(all.mutex);
  return plugin_of(all);
}

std::vector<CudaDevice> cuda_devices() { return cuda_plugin().devices(); }

void set_cuda_library_path(const std::string& folder) {
  Opened& all = opened();
  const std::lock_guard lock(all.mutex);
  all.libraries = folder;
  if (all.plugin) all.plugin->look_for_libraries_in(folder);
}

std::shared_ptr<Ops> ops_for(const Device& device) {
  if (device.type() == DeviceType::CUDA) return cuda_ops(device.index());
  static const auto* shared =
      new std::shared_ptr<Ops>(std::make_shared<cpu::OpsCpu>(cpu::kernels()));
  return *shared;
}

std::shared_ptr<DeviceMemory> device_memory(const Device& device) { return ops_for(device); }

}  // namespace infinilm
