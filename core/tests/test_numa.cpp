// Which nodes memory is dealt out to, and that it is memory afterwards.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cpu/memory.hpp"
#include "cpu/numa.hpp"
#include "tests/check.hpp"

using namespace infinilm::cpu;

namespace {

using List = std::vector<int>;

// A folder as /sys/devices/system/node, gone with the object.
class Machine {
 public:
  explicit Machine(const std::vector<std::string>& cpulists)
      : folder_(std::filesystem::temp_directory_path() /
                ("infinilm_nodes_" + std::to_string(::getpid()))) {
    for (std::size_t i = 0; i < cpulists.size(); ++i) {
      const auto node = folder_ / ("node" + std::to_string(i));
      std::filesystem::create_directories(node);
      std::ofstream(node / "cpulist") << cpulists[i] << '\n';
    }
    std::ofstream(folder_ / "possible") << "0-1\n";
  }
  ~Machine() { std::filesystem::remove_all(folder_); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  List nodes_of(const List& cpus) const { return infinilm::cpu::nodes_of(cpus, folder_.string()); }

 private:
  std::filesystem::path folder_;
};

}  // namespace

TEST(lists_of_processors) {
  CHECK((parse_cpu_list("0-2,8") == List{0, 1, 2, 8}));
  CHECK((parse_cpu_list("5\n") == List{5}));
  CHECK((parse_cpu_list("0,2-3,7-7") == List{0, 2, 3, 7}));
  CHECK(parse_cpu_list("").empty());
  CHECK(parse_cpu_list("none").empty());
  CHECK(parse_cpu_list("-1").empty());
  CHECK(parse_cpu_list("0-99999999").empty());
  CHECK((parse_cpu_list("1,x") == List{1}));
}

TEST(nodes_are_those_of_the_processors_that_may_be_used) {
  const Machine machine({"0-3,8-11", "4-7,12-15", "\n"});
  CHECK((machine.nodes_of({0, 5}) == List{0, 1}));
  CHECK((machine.nodes_of({8, 9}) == List{0}));
  CHECK((machine.nodes_of({15}) == List{1}));
  CHECK(machine.nodes_of({16}).empty());
  CHECK(nodes_of({0}, "/no/such/folder").empty());
}

TEST(large_memory_is_memory) {
  constexpr std::size_t kBytes = (std::size_t{1} << 23) + 100;
  const auto buffer = host_memory(kBytes);
  std::memset(buffer->data(), 7, kBytes);
  CHECK(std::all_of(buffer->data(), buffer->data() + kBytes,
                    [](std::byte b) { return b == std::byte{7}; }));
}
