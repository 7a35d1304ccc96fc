#include "infinilm/runtime.hpp"

#include "cpu/cpuid.hpp"
#include "cpu/kernels.hpp"
#include "cpu/pool.hpp"
#include "cpu/settings.hpp"
#include "infinilm/error.hpp"

namespace infinilm {

void set_num_threads(int count) {
  check(count >= 1 && count <= cpu::kMaxThreads, "expected a number of threads from 1 to ",
        cpu::kMaxThreads, ", found ", count);
  cpu::set_pool_threads(count);
}

int num_threads() { return cpu::pool_threads(); }

std::string cpu_level() { return cpu::kernels().name; }

std::vector<std::string> available_cpu_levels() { return cpu::supported_levels(); }

std::string version() { return INFINILM_VERSION; }

}  // namespace infinilm
