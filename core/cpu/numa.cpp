#include "cpu/numa.hpp"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace infinilm::cpu {

std::vector<int> parse_cpu_list(const std::string& text) {
  constexpr int kMost = 1 << 16;
  std::vector<int> numbers;
  std::istringstream words(text);
  for (int first = 0; words >> first;) {
    int last = first;
    if (words.peek() == '-' && !(words.ignore() >> last)) break;
    if (first < 0 || last > kMost) break;
    for (int n = first; n <= last; ++n) numbers.push_back(n);
    if (words.peek() != ',') break;
    words.ignore();
  }
  return numbers;
}

std::vector<int> nodes_of(const std::vector<int>& cpus, const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<int> nodes;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::vector<int> number =
        name.starts_with("node") ? parse_cpu_list(name.substr(4)) : std::vector<int>();
    std::ifstream file(entry->path() / "cpulist");
    std::string list;
    if (number.size() != 1 || !std::getline(file, list)) continue;
    const std::vector<int> own = parse_cpu_list(list);
    if (std::find_first_of(own.begin(), own.end(), cpus.begin(), cpus.end()) != own.end())
      nodes.push_back(number.front());
  }
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

#if defined(__linux__)
namespace {

// Of <linux/mempolicy.h>; the library that has functions for this is not everywhere.
constexpr int kDefaultPolicy = 0, kInterleave = 3;

bool has_default_policy() {
  int policy = kDefaultPolicy;
  return syscall(SYS_get_mempolicy, &policy, nullptr, 0, nullptr, 0) == 0 &&
         policy == kDefaultPolicy;
}

// One bit for each node; empty where there is nothing to deal out.
std::vector<unsigned long> node_mask() {
  cpu_set_t mask;
  if (!has_default_policy() || sched_getaffinity(0, sizeof mask, &mask) != 0) return {};
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  const std::vector<int> nodes = nodes_of(cpus, "/sys/devices/system/node");
  if (nodes.size() < 2) return {};
  constexpr auto kBits = static_cast<std::size_t>(std::numeric_limits<unsigned long>::digits);
  std::vector<unsigned long> bits(static_cast<std::size_t>(nodes.back()) / kBits + 1);
  for (const int node : nodes) {
    const auto n = static_cast<std::size_t>(node);
    bits[n / kBits] |= 1ul << n % kBits;
  }
  return bits;
}

}  // namespace

void interleave(void* memory, std::size_t nbytes) noexcept {
  try {
    static const std::vector<unsigned long> mask = node_mask();
    if (mask.empty()) return;
    constexpr auto kBits = static_cast<std::size_t>(std::numeric_limits<unsigned long>::digits);
    // The system takes one bit less than it is told. A refusal is no harm.
    static_cast<void>(
        syscall(SYS_mbind, memory, nbytes, kInterleave, mask.data(), mask.size() * kBits + 1, 0));
  } catch (const std::exception&) {
    // Without it the memory works all the same.
  }
}

#else

void interleave(void*, std::size_t) noexcept {}

#endif

}  // namespace infinilm::cpu
