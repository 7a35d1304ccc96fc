// Copies into shared memory that run by themselves, and barriers in it, for threads that wait for these or for one another.
#pragma once

#include "cuda/device.cuh"

namespace infinilm::cuda {

// ---- copies into shared memory that run by themselves; 16 bytes, zeros where `valid` is false
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
#if defined(__CUDA_ARCH__)
  const unsigned address = shared_address(to);
  const int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(size)
               : "memory");
#else
  *static_cast<uint4*>(to) = valid ? *static_cast<const uint4*>(from) : zero4();
#endif
}
__device__ __forceinline__ void commit_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// All but the last `kPending` groups have arrived.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---- threads that wait for one another, and for copies (Hopper and later)
// Hears of so many arrivals, and that all bytes that it was told of have arrived; again and again, in phases that count 0, 1, 0, …
using Arrival = std::uint64_t;

#if defined(INFINILM_CUDA_EMULATED)
inline bool copies_at_once() { return emulation::shared_limit() == emulation::kSharedLimit; }
inline void begin_arrivals(Arrival* arrivals, int count, int arrivers = 1) {
  for (int i = 0; i < count; ++i) emulation::begin_arrivals(arrivals + i, arrivers);
}
inline void show_arrivals() {}
inline void arrive(Arrival* arrival) { emulation::arrive(arrival); }
inline void arrive_with_copies(Arrival* arrival) { emulation::arrive(arrival); }
inline void expect_bytes(Arrival* arrival, int) { emulation::arrive(arrival); }
inline void copy_at_once(void* to, const void* from, int bytes, Arrival*) {
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
inline void prefetch_at_once(const void* from, int bytes) { emulation::touch(from, bytes); }
inline void wait_for_arrival(Arrival* arrival, unsigned phase) {
  emulation::wait_for_phase(arrival, phase);
}
inline void meet(int place, int threads) { emulation::meet(place, threads, true); }
inline void pass_by(int place, int threads) { emulation::meet(place, threads, false); }
#else
__device__ constexpr bool copies_at_once() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return true;
#else
  return false;
#endif
}
// By one thread; others may use them after show_arrivals by this one, and a barrier.
__device__ __forceinline__ void begin_arrivals(Arrival* arrivals, int count, int arrivers = 1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  for (int i = 0; i < count; ++i) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(arrivals + i)),
                 "r"(arrivers)
                 : "memory");
  }
#endif
}
__device__ __forceinline__ void show_arrivals() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void arrive(Arrival* arrival) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(arrival))
               : "memory");
#endif
}
// When all that this thread asked copy_async for has arrived.
__device__ __forceinline__ void arrive_with_copies(Arrival* arrival) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(arrival))
               : "memory");
#endif
}
__device__ __forceinline__ void expect_bytes(Arrival* arrival, int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrival)),
      "r"(bytes)
      : "memory");
#endif
}
// By one thread. A multiple of 16 bytes, from and to multiples of 16. What is read once leaves the device's cache before anything else:
// it makes way for what is read again and again, instructions not least.
__device__ __forceinline__ void copy_at_once(void* to, const void* from, int bytes,
                                             Arrival* arrival) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  std::uint64_t leaves_first;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(leaves_first));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(arrival)), "l"(leaves_first)
      : "memory");
#endif
}
// Into the device's cache. By one thread; a multiple of 16 bytes.
__device__ __forceinline__ void prefetch_at_once(const void* from, int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}
// The whole warp, until the phase has ended.
__device__ __forceinline__ void wait_for_arrival(Arrival* arrival, unsigned phase) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const unsigned at = shared_address(arrival);
  unsigned done = 0;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(at), "r"(phase)
        : "memory");
  } while (done == 0);
#endif
}
// So many threads of a block, whole warps, at one of its places 1 … 15 (0: __syncthreads): until all have come …
__device__ __forceinline__ void meet(int place, int threads) {
#if defined(__CUDA_ARCH__)
  asm volatile("bar.sync %0, %1;" ::"r"(place), "r"(threads) : "memory");
#endif
}
// … and without waiting for those who do.
__device__ __forceinline__ void pass_by(int place, int threads) {
#if defined(__CUDA_ARCH__)
  asm volatile("bar.arrive %0, %1;" ::"r"(place), "r"(threads) : "memory");
#endif
}
#endif

}  // namespace infinilm::cuda
