// The border between the core and the CUDA plug-in: a library of its own, opened when somebody asks for a CUDA device, so
// that the core runs where there is neither driver nor GPU.
//
// Both sides are compiled from the same headers by the same compiler; INFINILM_PLUGIN_ABI, a digest of these headers made
// by the build, tells a plug-in of another build apart before anything else of it is touched.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infinilm/runtime.hpp"
#include "ops/ops.hpp"

namespace infinilm {

struct CudaPlugin {
  std::uint32_t abi;  // stays the first member
  // Called once, before the others. `buffers` counts the buffers of both sides.
  void (*connect)(std::atomic<std::int64_t>* buffers);
  // What the driver reports. Error with the reason where there is nothing to report.
  std::vector<CudaDevice> (*devices)();
  // Error where the device is missing or of no use.
  std::shared_ptr<Ops> (*open)(int index);
  // See core/include/infinilm/runtime.hpp.
  void (*look_for_libraries_in)(const std::string& folder);
};

// The only symbol that a plug-in exports.
inline constexpr const char* kCudaPluginEntry = "infinilm_cuda_plugin";
using CudaPluginEntry = const CudaPlugin* (*)();

// The plug-in, opened on first use. Error that says why there is none: not built, not found, of another build.
const CudaPlugin& cuda_plugin();

}  // namespace infinilm
