// Process-wide settings: threads, the instruction set, CUDA devices.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace infinilm {

/// Threads of the one pool of the process. Default: physical cores within the affinity mask and the cgroup
/// quota, or INFINILM_NUM_THREADS. Throws ValueError unless 1 <= count <= 1024.
void set_num_threads(int count);
int num_threads();

/// The instruction set in use: "scalar", "avx2", "avx512", "avx512bf16", "amx" or "neon". Chosen on first use: the best that the
/// processor and the system support, or what INFINILM_CPU names (ValueError if it is not supported here).
std::string cpu_level();
/// What can be chosen on this machine, worst first.
std::vector<std::string> available_cpu_levels();

/// A GPU that the driver reports.
struct CudaDevice {
  int index = 0;                   ///< N of "cuda:N"
  std::string name;                ///< such as "NVIDIA H100 80GB HBM3"
  std::string compute_capability;  ///< such as "9.0"; 8.0 and later can be used
  std::size_t memory = 0;          ///< bytes, in all
};

/// The CUDA devices of this machine. Throws Error with the reason if there is none: infinilm was built without CUDA, its
/// plug-in was not found, there is no driver, it is too old, or it reports no device.
std::vector<CudaDevice> cuda_devices();

/// A folder to look for CUDA's libraries in (cuBLASLt), before the system's. Takes effect for devices that are not in use yet.
void set_cuda_library_path(const std::string& folder);

std::string version();

}  // namespace infinilm
