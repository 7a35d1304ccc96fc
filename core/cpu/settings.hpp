// What the environment says: INFINILM_NUM_THREADS and INFINILM_CPU.
#pragma once

#include <string>
#include <vector>

namespace infinilm::cpu {

inline constexpr int kMaxThreads = 1024;

// INFINILM_NUM_THREADS, else default_threads(). Throws ValueError.
int configured_threads();

// INFINILM_CPU, else the best of the levels. Throws ValueError for one that is not among them.
std::string configured_level(const std::vector<std::string>& available);

}  // namespace infinilm::cpu
