// How many threads are worth starting here.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "cpu/pool.hpp"

namespace infinilm::cpu {
namespace {

#if defined(__linux__)

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Cores that this process may use; the threads of one core name the same siblings.
int cores_in_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string number = std::to_string(cpu);
    const std::string siblings =
        read_line("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? "cpu" + number : siblings);
  }
  return static_cast<int>(cores.size());
}

// CPUs' worth of time that `cpu.max` ("max 100000", "150000 100000") allows.
double quota_of(const std::string& folder) {
  std::istringstream words(read_line(folder + "/cpu.max"));
  double quota = 0, period = 0;
  if (words >> quota >> period && period > 0) return quota / period;
  std::istringstream old_quota(read_line(folder + "/cpu.cfs_quota_us"));  // cgroup v1
  std::istringstream old_period(read_line(folder + "/cpu.cfs_period_us"));
  if (old_quota >> quota && old_period >> period && quota > 0 && period > 0) return quota / period;
  return std::numeric_limits<double>::infinity();
}

// The least of the process's own control group and the groups around it.
double cgroup_quota() {
  std::ifstream groups("/proc/self/cgroup");
  double quota = std::min(quota_of("/sys/fs/cgroup"), quota_of("/sys/fs/cgroup/cpu"));
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v1 = controllers.find("cpu") != std::string::npos;
    if (!controllers.empty() && !v1) continue;
    const std::string root = v1 ? "/sys/fs/cgroup/cpu" : "/sys/fs/cgroup";
    for (std::string path = line.substr(second + 1); path.size() > 1; path.erase(path.rfind('/'))) {
      quota = std::min(quota, quota_of(root + path));
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return quota;
}

int usable_cores() {
  const int cores = cores_in_mask();
  const double quota = cgroup_quota();
  return quota < cores ? static_cast<int>(std::ceil(quota)) : cores;
}

#else

int usable_cores() { return 0; }

#endif

}  // namespace

int default_threads() {
  int cores = usable_cores();
  if (cores < 1) cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores, 1, 1024);
}

}  // namespace infinilm::cpu
