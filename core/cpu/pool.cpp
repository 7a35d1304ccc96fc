#include "cpu/pool.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "cpu/settings.hpp"

namespace infinilm::cpu {
namespace {

void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for about `kSpin`, then gives up. True if `done()` became true.
template <class Done>
bool spin_until(Done done) noexcept {
  constexpr auto kSpin = std::chrono::microseconds(20);
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  return done();
}

// True while this thread runs a chunk: a region inside of a region runs on the spot.
thread_local bool in_region = false;

// A set of workers. Replaced as a whole when the number of threads changes.
class Team {
 public:
  explicit Team(int workers) {
    threads_.reserve(static_cast<std::size_t>(workers));
    try {
      for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that are there, and the caller, do all the work.
    }
  }

  // Workers are idle then: the caller holds the pool's mutex.
  ~Team() {
    stop_.store(true, std::memory_order_relaxed);
    wake();
    for (std::thread& thread : threads_) thread.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(std::int64_t count, std::int64_t grain, Chunk chunk, void* context) {
    chunk_ = chunk;
    context_ = context;
    count_ = count;
    grain_ = grain;
    error_ = nullptr;
    failed_.store(false, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    wake();
    take_chunks();
    close();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  static constexpr std::uint32_t kOpen = 1u << 31;

  void wake() noexcept {
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }

  void take_chunks() noexcept {
    in_region = true;
    for (;;) {
      const std::int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= count_) break;
      const std::int64_t end = count_ - begin < grain_ ? count_ : begin + grain_;
      try {
        chunk_(context_, begin, end);
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
        next_.store(count_, std::memory_order_relaxed);
      }
    }
    in_region = false;
  }

  // No worker enters any more; waits for those inside.
  void close() noexcept {
    std::uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    const auto empty = [&] { return (inside = gate_.load(std::memory_order_acquire)) == 0; };
    while (inside != 0 && !spin_until(empty)) gate_.wait(inside, std::memory_order_acquire);
  }

  bool enter() noexcept {
    std::uint32_t gate = gate_.load(std::memory_order_relaxed);
    while (gate & kOpen) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  void leave() noexcept {
    if (gate_.fetch_sub(1, std::memory_order_release) == 1) gate_.notify_one();
  }

  void work() noexcept {
    std::uint32_t seen = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
      if (enter()) {
        take_chunks();
        leave();
      }
      const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
      if (!spin_until(changed)) epoch_.wait(seen, std::memory_order_acquire);
      seen = epoch_.load(std::memory_order_acquire);
    }
  }

  // Each group of words that one side writes and the other polls has a cache line of its own.
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<std::uint32_t> gate_{0};  // kOpen, and how many workers are inside
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) Chunk chunk_ = nullptr;
  void* context_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t grain_ = 1;
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

struct Pool {
  std::mutex mutex;             // held by the caller of the region that runs
  std::atomic<int> threads{0};  // 0: not decided yet
  std::unique_ptr<Team> team;   // none for one thread or before the first region
};

std::atomic<Pool*> current_pool{nullptr};

// In the child the old pool's workers do not exist and its mutex may be held for ever: both are left behind.
void abandon_pool() {
  Pool* old = current_pool.load(std::memory_order_relaxed);
  Pool* fresh = new Pool;
  if (old)
    fresh->threads.store(old->threads.load(std::memory_order_relaxed), std::memory_order_relaxed);
  current_pool.store(fresh, std::memory_order_release);
  in_region = false;
}

Pool& pool() {
  static const bool made = [] {
    current_pool.store(new Pool, std::memory_order_release);
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, abandon_pool);
#endif
    return true;
  }();
  static_cast<void>(made);
  return *current_pool.load(std::memory_order_acquire);
}

}  // namespace

int pool_threads() {
  std::atomic<int>& threads = pool().threads;
  int count = threads.load(std::memory_order_relaxed);
  if (count == 0) {
    count = configured_threads();
    threads.store(count, std::memory_order_relaxed);
  }
  return count;
}

void set_pool_threads(int count) {
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  if (p.threads.exchange(count) != count) p.team.reset();
}

void parallel_chunks(std::int64_t count, std::int64_t grain, Chunk chunk, void* context) {
  const int threads = pool_threads();
  if (threads == 1 || in_region || count <= grain) {
    if (count > 0) chunk(context, 0, count);
    return;
  }
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  const int now = p.threads.load(std::memory_order_relaxed);
  if (now == 1) return chunk(context, 0, count);
  if (!p.team) p.team = std::make_unique<Team>(now - 1);
  p.team->run(count, grain, chunk, context);
}

}  // namespace infinilm::cpu
