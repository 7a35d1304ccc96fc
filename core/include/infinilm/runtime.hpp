// Process-wide settings: threads and the instruction set.
#pragma once

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

std::string version();

}  // namespace infinilm
