// The thread pool: every index once, exceptions, nesting, several callers, another number of
// threads, fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/pool.hpp"
#include "infinilm/error.hpp"
#include "infinilm/runtime.hpp"
#include "tests/check.hpp"

using namespace infinilm;
using cpu::parallel_for;

namespace {

// True if a loop over [0, count) runs every index once.
bool covers(std::int64_t count, std::int64_t grain) {
  std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count));
  parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
  });
  for (const auto& hit : hits) {
    if (hit != 1) return false;
  }
  return true;
}

}  // namespace

TEST(every_index_runs_once) {
  for (int threads : {1, 2, 7}) {
    set_num_threads(threads);
    CHECK(num_threads() == threads);
    for (std::int64_t count : {0, 1, 2, 63, 64, 65, 1000}) {
      for (std::int64_t grain : {1, 3, 64, 5000}) CHECK(covers(count, grain));
    }
  }
}

TEST(the_number_of_threads_has_limits) {
  CHECK_THROWS(ValueError, "0", set_num_threads(0));
  CHECK_THROWS(ValueError, "1025", set_num_threads(1025));
}

TEST(many_short_regions_in_a_row) {
  set_num_threads(4);
  std::atomic<std::int64_t> sum{0};
  for (int i = 0; i < 2000; ++i) {
    parallel_for(16, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  }
  CHECK(sum == 32000);
}

TEST(an_exception_reaches_the_caller_and_the_pool_stays_usable) {
  set_num_threads(4);
  for (int i = 0; i < 50; ++i) {
    CHECK_THROWS(std::domain_error, "chunk",
                 parallel_for(100, 1, [](std::int64_t begin, std::int64_t) {
                   if (begin == 37) throw std::domain_error("chunk");
                 }));
    CHECK(covers(100, 1));
  }
}

TEST(several_callers_at_once) {
  set_num_threads(3);
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&good] {
      for (int i = 0; i < 100; ++i) good += covers(200, 3);
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(good == 400);
}

#if !defined(__SANITIZE_THREAD__)  // which does not follow threads that a forked child starts
TEST(a_forked_child_has_a_pool_of_its_own) {
  set_num_threads(3);
  CHECK(covers(100, 1));
  const pid_t child = fork();
  if (child == 0) _exit(covers(100, 1) ? 0 : 1);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(covers(100, 1));
}
#endif
