// What this machine can do at best, measured: reading memory and multiplying. Compiled and called by ceilings.py.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kChains = 24;  // of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kChains = 12;  // of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kChains = 12;
#endif
constexpr int kLanes = kVectorBytes / 4;

typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef std::uint64_t Words __attribute__((vector_size(kVectorBytes)));

// Seconds from the moment when all threads start `work(thread)` together to the end of the last one.
template <class Work>
double seconds_of(int threads, Work work) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  const auto wait_and_work = [&](int thread) {
    ready.fetch_add(1);
    while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
    work(thread);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(wait_and_work, i);
  while (ready.load() != threads - 1) std::this_thread::yield();
  const auto start = Clock::now();
  go.store(true, std::memory_order_release);
  work(0);
  for (std::thread& other : others) other.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Several streams side by side: no way of reading was found to be faster here, prefetching included.
void read(const std::byte* begin, std::size_t bytes) {
  constexpr int kStreams = 4;
  constexpr int kUnroll = 8;
  constexpr std::size_t kStep = kUnroll * kVectorBytes;
  const std::size_t part = bytes / kStreams;
  Words sums[kUnroll] = {};
  for (std::size_t offset = 0; offset + kStep <= part; offset += kStep) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const auto* p = reinterpret_cast<const Words*>(begin + stream * part + offset);
#pragma GCC unroll 8
      for (int i = 0; i < kUnroll; ++i) sums[i] ^= p[i];
    }
  }
  for (Words& sum : sums) asm volatile("" : : "m"(sum));
}

// Independent chains of acc = acc * x + y, which the compiler contracts to fused multiply-adds.
void multiply_add(std::int64_t rounds) {
  Floats acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = Floats{} + static_cast<float>(i);
  Floats x = Floats{} + 0.999f, y = Floats{} + 0.001f;
  asm volatile("" : "+m"(x), "+m"(y));  // no constants to fold
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * x + y;
  }
  for (Floats& sum : acc) asm volatile("" : : "m"(sum));
}

#ifdef __AVX512BF16__
void dot_bf16(std::int64_t rounds) {
  __m512 acc[kChains];
  for (__m512& sum : acc) sum = _mm512_setzero_ps();
  __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(-0.5f));
  asm volatile("" : "+v"(x));
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], x, x);
  }
  for (__m512& sum : acc) asm volatile("" : : "m"(sum));
}
#endif

}  // namespace

// Bytes a second; `buffer` is aligned to pages and long.
extern "C" double read_rate(const void* buffer, std::size_t bytes, int threads) {
  const auto* begin = static_cast<const std::byte*>(buffer);
  constexpr std::size_t kPage = 4096;
  const std::size_t part = bytes / static_cast<std::size_t>(threads) / (4 * kPage) * (4 * kPage);
  const double seconds = seconds_of(
      threads, [&](int thread) { read(begin + static_cast<std::size_t>(thread) * part, part); });
  return static_cast<double>(part) * threads / seconds;
}

// Floating-point operations a second: a multiplication and an addition count as two.
extern "C" double fma_rate(std::int64_t rounds, int threads) {
  const double seconds = seconds_of(threads, [&](int) { multiply_add(rounds); });
  return 2.0 * kLanes * kChains * static_cast<double>(rounds) * threads / seconds;
}

// The same for vdpbf16ps; 0 where the processor has none.
extern "C" double dot_bf16_rate([[maybe_unused]] std::int64_t rounds,
                                [[maybe_unused]] int threads) {
#ifdef __AVX512BF16__
  const double seconds = seconds_of(threads, [&](int) { dot_bf16(rounds); });
  return 4.0 * kLanes * kChains * static_cast<double>(rounds) * threads / seconds;
#else
  return 0.0;
#endif
}
