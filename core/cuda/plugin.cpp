// The way into this library for the core.
#include "ops/cuda_plugin.hpp"

#include <utility>

#include "base/live_buffers.hpp"
#include "cuda/cublaslt.hpp"
#include "cuda/devices.hpp"
#include "cuda/ops_cuda.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// The core asks once for each device and keeps what it got.
std::shared_ptr<Ops> open_device(int index) {
  cuda::check_device(index);
  auto ops = std::make_shared<cuda::OpsCuda>(index);
  try {
    ops->use(cuda::make_cublaslt());
  } catch (const Error& missing) {
    ops->go_without_products(missing.what());
  }
  return ops;
}

constexpr CudaPlugin kPlugin = {INFINILM_PLUGIN_ABI, count_live_buffers_in, cuda::devices,
                                open_device, cuda::look_for_libraries_in};

}  // namespace

// Tensors in here live on the device that made them, and are copied by its Ops; nothing in here looks for another.
std::shared_ptr<DeviceMemory> device_memory(const Device& device) {
  throw Error(concat("the CUDA plug-in was asked for the memory of ", device.str()));
}

}  // namespace infinilm

extern "C" [[gnu::visibility("default")]] const infinilm::CudaPlugin* infinilm_cuda_plugin() {
  return &infinilm::kPlugin;
}
