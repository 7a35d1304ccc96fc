// The CUDA plug-in with its kernels emulated: device "cuda" for a whole test run where there is no GPU, and very slow.
// INFINILM_CUDA_PLUGIN names it.
#include "base/live_buffers.hpp"
#include "cuda/ops_cuda.hpp"
#include "infinilm/error.hpp"
#include "ops/cuda_plugin.hpp"

namespace infinilm {
namespace {

std::vector<CudaDevice> devices() { return {{0, "emulated kernels", "0.0", std::size_t{1} << 30}}; }

std::shared_ptr<Ops> open_device(int index) {
  check<Error>(index == 0, "this machine has 1 CUDA device, \"cuda:0\"");
  return std::make_shared<cuda::OpsCuda>(index);
}

constexpr CudaPlugin kPlugin = {INFINILM_PLUGIN_ABI, count_live_buffers_in, devices, open_device,
                                [](const std::string&) {}};

}  // namespace

std::shared_ptr<DeviceMemory> device_memory(const Device& device) {
  throw Error(concat("the plug-in was asked for the memory of ", device.str()));
}

}  // namespace infinilm

extern "C" [[gnu::visibility("default")]] const infinilm::CudaPlugin* infinilm_cuda_plugin() {
  return &infinilm::kPlugin;
}
