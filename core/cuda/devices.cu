#include "cuda/devices.hpp"

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <string>

#include "cuda/context.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// Does nothing: whether it can be loaded tells whether this device is one that the kernels were built for.
__global__ void probe() {}

constexpr const char* kDriver = "libcuda.so.1";

// "13.0" of 13000.
std::string version_text(int version) { return concat(version / 1000, '.', version % 1000 / 10); }

void check_driver() {
  void* driver = dlopen(kDriver, RTLD_NOW | RTLD_LOCAL);  // left open: the runtime wants it next
  if (driver) return;
  const char* reason = dlerror();
  throw Error(concat("no NVIDIA driver was found on this machine, which CUDA needs (",
                     reason ? reason : kDriver, ")"));
}

int device_count() {
  check_driver();
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    throw Error(concat("the NVIDIA driver supports CUDA ", version_text(driver),
                       ", infinilm was built with CUDA ", version_text(runtime),
                       "; install a newer driver"));
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    throw Error("the driver reports no CUDA device (CUDA_VISIBLE_DEVICES may hide it)");
  }
  if (status != cudaSuccess) {
    throw Error(concat("counting the devices: ", cudaGetErrorName(status), " (",
                       cudaGetErrorString(status), ")"));
  }
  return count;
}

CudaDevice describe(int index) {
  cudaDeviceProp p{};
  check_cuda(cudaGetDeviceProperties(&p, index), concat("asking what \"cuda:", index, "\" is"));
  return {index, p.name, concat(p.major, '.', p.minor), p.totalGlobalMem};
}

}  // namespace

std::vector<CudaDevice> devices() {
  std::vector<CudaDevice> found;
  const int count = device_count();
  for (int i = 0; i < count; ++i) found.push_back(describe(i));
  return found;
}

void check_device(int index) {
  const int count = device_count();
  check<Error>(index < count, "this machine has ", count,
               count == 1 ? " CUDA device, \"cuda:0\"" : " CUDA devices, from \"cuda:0\" on");
  const CudaDevice device = describe(index);
  check_cuda(cudaSetDevice(index), "choosing the device");
  cudaFuncAttributes unused{};
  const cudaError_t status = cudaFuncGetAttributes(&unused, reinterpret_cast<const void*>(&probe));
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const bool unsupported = status == cudaErrorNoKernelImageForDevice ||
                           status == cudaErrorInvalidDeviceFunction ||
                           status == cudaErrorUnsupportedPtxVersion;
  check<Error>(!unsupported, quoted(device.name), " of compute capability ",
               device.compute_capability, ", is not supported: this infinilm was built for ",
               INFINILM_ARCHITECTURES, " (", cudaGetErrorName(status), ")");
  check_cuda(status, concat("starting \"cuda:", index, "\""));
}

int code_version() {
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, probe), "reading a kernel's attributes");
  return attributes.ptxVersion;
}

}  // namespace infinilm::cuda
