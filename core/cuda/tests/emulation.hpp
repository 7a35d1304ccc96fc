// CUDA kernels on the CPU, one block after the other: enough of the language and of the runtime to run core/cuda where there
// is no GPU. Every thread of a block is a fiber; barriers and what a warp does together are where they change over.
// What is put on a stream is done as late as can be. Slow, deterministic, and blind to races between blocks: a way of finding wrong indices
// and missing waits, not of proving speed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

inline constexpr std::size_t kStack = 128 * 1024, kMostThreads = 1024;
inline constexpr std::size_t kSharedLimit = 227 * 1024;
// Of the device that is emulated; INFINILM_EMULATED_SHARED: in KiB.
inline std::size_t shared_limit() {
  static const char* const given = std::getenv("INFINILM_EMULATED_SHARED");
  static const std::size_t limit = given ? std::strtoul(given, nullptr, 10) * 1024 : kSharedLimit;
  return std::min(limit, kSharedLimit);
}

struct Fiber {
  ucontext_t context{};
  jmp_buf
      point;  // where it goes on: jumps are cheaper than contexts, which ask the system for signal masks
  bool started = false;
  std::unique_ptr<std::byte[]> stack;
  dim3 thread;
  std::function<bool()> until;
};

enum Waits : unsigned char { kRuns, kForBlock, kForWarp, kHasEnded, kUntil };

struct Warp {
  int live = 0, arrived = 0;
  alignas(16) std::byte slots[32][64];
};

// Where some of a block's threads meet.
struct Place {
  int arrived = 0, times = 0;
};

struct Block {
  // As many as any block had: to make one takes longer than to run it again.
  std::deque<Fiber> fibers;
  std::size_t threads = 0;  // that this one has
  Waits waits[kMostThreads];
  std::vector<Warp> warps;
  Place places[16];
  jmp_buf scheduler;
  std::size_t current = 0;
  int live = 0, arrived = 0;
  std::function<void()> body;
  alignas(128) std::byte shared[kSharedLimit];
};

inline Block& block() {
  static Block b;
  return b;
}

inline void* dynamic_shared() { return block().shared; }
inline std::size_t lane() { return block().current % 32; }
inline Warp& warp() { return block().warps[block().current / 32]; }

[[gnu::noinline]] inline void yield() {
  Block& b = block();
  if (_setjmp(b.fibers[b.current].point) == 0) _longjmp(b.scheduler, 1);
}

// Goes on with a fiber until it yields.
[[gnu::noinline]] inline void resume(Block& b, Fiber& f) {
  if (_setjmp(b.scheduler) != 0) return;
  if (f.started) _longjmp(f.point, 1);
  f.started = true;
  setcontext(&f.context);
}

inline void release(Block& b, std::size_t begin, std::size_t end, Waits kind) {
  std::replace(b.waits + begin, b.waits + end, kind, kRuns);
}

inline void release_if_all(Block& b, std::size_t w) {
  if (b.live > 0 && b.arrived == b.live) {
    b.arrived = 0;
    release(b, 0, b.threads, kForBlock);
  }
  Warp& warp = b.warps[w];
  if (warp.live > 0 && warp.arrived == warp.live) {
    warp.arrived = 0;
    release(b, w * 32, std::min(w * 32 + 32, b.threads), kForWarp);
  }
}

inline void wait(Waits kind) {
  Block& b = block();
  const std::size_t w = b.current / 32;
  ++(kind == kForBlock ? b.arrived : b.warps[w].arrived);
  b.waits[b.current] = kind;
  release_if_all(b, w);
  if (b.waits[b.current] != kRuns) yield();
}

inline void wait_until(std::function<bool()> holds) {
  if (holds()) return;
  Block& b = block();
  b.fibers[b.current].until = std::move(holds);
  b.waits[b.current] = kUntil;
  yield();
}

// A barrier in shared memory, in its 64 bits.
struct Arrivals {
  std::uint16_t expected, missing;
  std::uint32_t phase;
};
inline Arrivals read_arrivals(const std::uint64_t* at) { return std::bit_cast<Arrivals>(*at); }
inline void begin_arrivals(std::uint64_t* at, int arrivers) {
  const auto count = static_cast<std::uint16_t>(arrivers);
  *at = std::bit_cast<std::uint64_t>(Arrivals{count, count, 0});
}
inline void arrive(std::uint64_t* at) {
  Arrivals a = read_arrivals(at);
  if (--a.missing == 0) a = {a.expected, a.expected, a.phase ^ 1u};
  *at = std::bit_cast<std::uint64_t>(a);
}
inline void wait_for_phase(const std::uint64_t* at, unsigned phase) {
  wait_until([=] { return read_arrivals(at).phase != phase; });
}

// Reads what somebody will soon ask for, so that wrong addresses are found.
inline void touch(const void* from, int bytes) {
  const auto* memory = static_cast<const volatile unsigned char*>(from);
  for (int i = 0; i < bytes; i += 16) static_cast<void>(memory[i]);
}

inline void meet(int index, int threads, bool waits) {
  Place& place = block().places[index];
  const int time = place.times;
  if (++place.arrived == threads) {
    place.arrived = 0;
    ++place.times;
  } else if (waits) {
    wait_until([&place, time] { return place.times != time; });
  }
}

inline void enter() {
  Block& b = block();
  for (;;) {  // a thread of one block after the other
    b.body();
    const std::size_t w = b.current / 32;
    b.waits[b.current] = kHasEnded;
    --b.live;
    --b.warps[w].live;
    release_if_all(b, w);
    yield();
  }
}

// `number`: stacks that began alike within their pages would share lines of the CPU's first cache.
inline void make_fiber(Fiber& f, std::size_t number) {
  f.stack = std::make_unique<std::byte[]>(kStack);
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack.get();
  f.context.uc_stack.ss_size = kStack - number * 448 % 4096;
  f.context.uc_link = nullptr;
  makecontext(&f.context, reinterpret_cast<void (*)()>(enter), 0);
}

inline void start_fibers(Block& b, dim3 threads) {
  const std::size_t count = std::size_t{threads.x} * threads.y * threads.z;
  b.threads = count;
  while (b.fibers.size() < count) {
    const std::size_t number = b.fibers.size();
    make_fiber(b.fibers.emplace_back(), number);
  }
  b.warps.resize((count + 31) / 32);
  for (Warp& w : b.warps) w.live = w.arrived = 0;
  std::fill(std::begin(b.places), std::end(b.places), Place{});
  b.live = static_cast<int>(count);
  b.arrived = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Fiber& f = b.fibers[i];
    f.thread =
        dim3(static_cast<unsigned>(i % threads.x), static_cast<unsigned>(i / threads.x % threads.y),
             static_cast<unsigned>(i / threads.x / threads.y));
    b.waits[i] = kRuns;
    ++b.warps[i / 32].live;
  }
}

// Calls use(0), use(1), …, in another order each time, so that a barrier that is missing shows. The same in every run.
template <class Use>
void in_some_order(std::size_t count, Use use) {
  static std::minstd_rand engine(1);
  std::size_t at = engine() % count, step = engine() % count;
  while (std::gcd(step, count) != 1) step = (step + 1) % count;
  for (std::size_t i = 0; i < count; ++i) {
    use(at);
    at += step;
    if (at >= count) at -= count;
  }
}

inline void run_block(dim3 threads) {
  Block& b = block();
  std::memset(b.shared, 0xff, sizeof b.shared);  // NaN: what was never written shows
  start_fibers(b, threads);
  while (b.live > 0) {
    bool ran = false;
    in_some_order(b.threads, [&](std::size_t fiber) {
      Waits& waits = b.waits[fiber];
      if (waits != kRuns && waits != kUntil) return;
      b.current = fiber;
      Fiber& f = b.fibers[fiber];
      if (waits == kUntil && !f.until()) return;
      waits = kRuns;
      ran = true;
      threadIdx = f.thread;
      resume(b, f);
    });
    if (!ran) std::abort();  // a deadlock: not all threads came to a barrier
  }
}

inline void run_grid(dim3 grid, dim3 threads, std::size_t shared, std::function<void()> body) {
  constexpr unsigned kMostBlocks = 65535;
  if (shared > shared_limit() || grid.y > kMostBlocks || grid.z > kMostBlocks) std::abort();
  if (std::size_t{threads.x} * threads.y * threads.z > kMostThreads) std::abort();
  block().body = std::move(body);
  gridDim = grid;
  blockDim = threads;
  in_some_order(std::size_t{grid.x} * grid.y * grid.z, [&](std::size_t i) {
    const auto at = static_cast<unsigned>(i);
    blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y);
    run_block(threads);
  });
}

// Every lane gives a value and sees those of its warp.
template <class T, class Read>
auto exchange(const T& value, Read read) {
  static_assert(sizeof(T) <= 64);
  std::memcpy(warp().slots[lane()], &value, sizeof value);
  wait(kForWarp);
  auto result = read([](std::size_t l) {
    T other;
    std::memcpy(&other, warp().slots[l], sizeof other);
    return other;
  });
  wait(kForWarp);
  return result;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::kForBlock); }
inline void __syncwarp() { emulation::wait(emulation::kForWarp); }
inline void __threadfence() {}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const std::size_t from = emulation::lane() ^ static_cast<std::size_t>(mask);
  return emulation::exchange(value, [&](auto at) { return at(from); });
}
template <class T>
T __shfl_sync(unsigned, T value, int source) {
  return emulation::exchange(value, [&](auto at) { return at(static_cast<std::size_t>(source)); });
}
// The lane's own value where there is no lane so far below.
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned step) {
  const std::size_t lane = emulation::lane();
  const std::size_t from = lane < step ? lane : lane - step;
  return emulation::exchange(value, [&](auto at) { return at(from); });
}

template <class T>
T atomicAdd(T* p, T v) {
  const T old = *p;
  *p += v;
  return old;
}

template <class T>
T __ldcg(const T* p) {
  return *p;
}
using std::max;
using std::min;

inline float __uint_as_float(unsigned u) {
  float f;
  std::memcpy(&f, &u, sizeof f);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

// ---- the runtime -----------------------------------------------------------------------------------------------------
using cudaError_t = int;
using cudaStream_t = void*;
using cudaEvent_t = void*;
using cudaGraph_t = void*;
using cudaGraphExec_t = void*;
using cudaMemPool_t = void*;
inline constexpr int cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorNotSupported = 801;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

inline const char* cudaGetErrorName(int) { return "cudaErrorOfEmulation"; }
inline const char* cudaGetErrorString(int) { return "an error of the emulation"; }
inline int cudaGetLastError() { return 0; }
inline int cudaMalloc(void** p, std::size_t n) {
  *p = std::aligned_alloc(256, (n + 511) / 256 * 256);
  if (*p) std::memset(*p, 0xff, n);
  return *p ? 0 : cudaErrorMemoryAllocation;
}
inline int cudaFree(void* p) {
  std::free(p);
  return 0;
}
inline int cudaGetDevice(int* index) {
  *index = 0;
  return 0;
}
inline int cudaSetDevice(int) { return 0; }

namespace emulation {

inline std::size_t most_pinned = std::numeric_limits<std::size_t>::max();  // in one piece

// What a thread puts on the null stream is done at once; on others as late as can be: when somebody waits for it.
class Stream {
 public:
  Stream() { all().insert(this); }
  ~Stream() { all().erase(this); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  static std::set<Stream*>& all() {
    static auto* streams = new std::set<Stream*>;
    return *streams;
  }
  void put(std::function<void()> work) { work_.push_back(std::move(work)); }
  std::size_t end() const { return done_ + work_.size(); }
  void run_until(std::size_t end) {
    for (; done_ < end; ++done_) {
      work_.front()();
      work_.pop_front();
    }
  }

 private:
  std::deque<std::function<void()>> work_;
  std::size_t done_ = 0;
};

struct Event {
  Stream* stream = nullptr;
  std::size_t end = 0;
};

// Of all streams: some is waited for by other threads.
inline std::unique_lock<std::recursive_mutex> lock_streams() {
  static std::recursive_mutex mutex;
  return std::unique_lock(mutex);
}

inline int put(void* stream, std::function<void()> work) {
  const auto lock = lock_streams();
  stream ? static_cast<Stream*>(stream)->put(std::move(work)) : work();
  return 0;
}

}  // namespace emulation

inline int cudaMallocHost(void** p, std::size_t n) {
  return n > emulation::most_pinned ? cudaErrorMemoryAllocation : cudaMalloc(p, n);
}
inline int cudaFreeHost(void* p) { return cudaFree(p); }
inline int cudaFreeAsync(void* p, cudaStream_t stream) {
  return emulation::put(stream, [=] { cudaFree(p); });
}
inline int cudaMemcpyAsync(void* to, const void* from, std::size_t n, cudaMemcpyKind,
                           cudaStream_t stream) {
  return emulation::put(stream, [=] { std::memcpy(to, from, n); });
}
inline int cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                             std::size_t from_pitch, std::size_t width, std::size_t height,
                             cudaMemcpyKind, cudaStream_t stream) {
  return emulation::put(stream, [=] {
    for (std::size_t r = 0; r < height; ++r) {
      std::memcpy(static_cast<char*>(to) + r * to_pitch,
                  static_cast<const char*>(from) + r * from_pitch, width);
    }
  });
}
inline int cudaMemsetAsync(void* p, int value, std::size_t n, cudaStream_t stream) {
  return emulation::put(stream, [=] { std::memset(p, value, n); });
}
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
inline int cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const auto lock = emulation::lock_streams();
  *stream = new emulation::Stream;
  return 0;
}
inline int cudaStreamSynchronize(cudaStream_t stream) {
  const auto lock = emulation::lock_streams();
  auto* s = static_cast<emulation::Stream*>(stream);
  if (s) s->run_until(s->end());
  return 0;
}
inline int cudaDeviceSynchronize() {
  const auto lock = emulation::lock_streams();
  for (emulation::Stream* s : emulation::Stream::all()) s->run_until(s->end());
  return 0;
}
inline int cudaStreamDestroy(cudaStream_t stream) {
  const auto lock = emulation::lock_streams();
  delete static_cast<emulation::Stream*>(stream);
  return 0;
}
inline int cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new emulation::Event;
  return 0;
}
inline int cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto lock = emulation::lock_streams();
  auto* s = static_cast<emulation::Stream*>(stream);
  *static_cast<emulation::Event*>(event) = {s, s ? s->end() : 0};
  return 0;
}
inline int cudaEventSynchronize(cudaEvent_t event) {
  const auto lock = emulation::lock_streams();
  const auto* e = static_cast<const emulation::Event*>(event);
  if (e->stream) e->stream->run_until(e->end);
  return 0;
}
inline int cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return emulation::put(stream, [e = *static_cast<const emulation::Event*>(event)] {
    if (e.stream) e.stream->run_until(e.end);
  });
}
inline int cudaEventDestroy(cudaEvent_t event) {
  delete static_cast<emulation::Event*>(event);
  return 0;
}
