// Products of 16 outputs a warp with many rows of x at once, four warps together: on Hopper by its instructions for that (wgmma),
// elsewhere by those that a warp has for itself.
//
// x lies in shared memory as these want it: for every 16 columns two halves, of which every row has 16 bytes, row after row:
//   x [columns / 16][2][rows][8 elements]
// The columns are numbered in another order, as W's are (product.cuh): of 32, lane t of a warp multiplies 8 t … 8 t + 7, which are
// numbers 2 t, 2 t + 1, 8 + 2 t, 9 + 2 t of the first 16 and of the second.
#pragma once

#include "cuda/device.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define INFINILM_WGMMA
#endif

namespace infinilm::cuda {

// Of x in shared memory, of kRows rows: where element (row, 0) of half `half` of 16 columns number `step` lies.
template <int kRows>
__device__ __forceinline__ std::uint16_t* place_in_wide(std::uint16_t* x, int step, int half,
                                                        int row) {
  return x + ((step * 2 + half) * kRows + row) * 8;
}

// Eight neighbouring columns of a row, of which `column` is the first.
template <int kRows>
__device__ __forceinline__ void put_in_wide(std::uint16_t* x, int row, int column, const uint4& v) {
  const int step = column / 32 * 2, at = column % 32 / 8 * 2;
  const auto put = [&](int s, int half, unsigned pair) {
    *reinterpret_cast<unsigned*>(place_in_wide<kRows>(x, step + s, half, row) + at) = pair;
  };
  put(0, 0, v.x);
  put(0, 1, v.y);
  put(1, 0, v.z);
  put(1, 1, v.w);
}

// By every thread that has put something there, before a barrier.
__device__ __forceinline__ void show_to_tensor_cores() {
#if defined(INFINILM_WGMMA)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Around some products: what they read and add to is left alone between the two.
__device__ __forceinline__ void begin_wide() {
#if defined(INFINILM_WGMMA)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
// When all of them have been asked for.
__device__ __forceinline__ void commit_wide() {
#if defined(INFINILM_WGMMA)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until all that was committed but the last kPending times is done; d is one of the results.
template <int kPending = 0, int kCount>
__device__ __forceinline__ void end_wide([[maybe_unused]] float (&d)[kCount][4]) {
#if defined(INFINILM_WGMMA)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#pragma unroll
  for (int n = 0; n < kCount; ++n) {  // the compiler is not to look at it earlier
    asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
  }
#endif
}

// Registers of each thread from here on, asked for by four whole warps together: there are only so many, and some groups of warps need
// few.
template <int kCount>
__device__ __forceinline__ void take_registers() {
#if defined(INFINILM_WGMMA)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}
template <int kCount>
__device__ __forceinline__ void leave_registers() {
#if defined(INFINILM_WGMMA)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}

#if defined(INFINILM_WGMMA)
// Shared memory as wgmma is told of it: no swizzling; bytes from one half to the other, and from 8 rows to the next.
template <int kRows>
__device__ __forceinline__ std::uint64_t describe_wide(const std::uint16_t* x) {
  constexpr std::uint64_t kToHalf = kRows * 16, kToRows = 8 * 16;
  return (shared_address(x) & 0x3ffffu) >> 4 | (kToHalf >> 4) << 16 | (kToRows >> 4) << 32;
}

#define INFINILM_WGMMA_8(d, n)                                                   \
  "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3]), "+f"(d[n + 1][0]), \
      "+f"(d[n + 1][1]), "+f"(d[n + 1][2]), "+f"(d[n + 1][3])
#define INFINILM_WGMMA_32_ROWS(type)                                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                 \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, " \
               "{%16, %17, %18, %19}, %20, 1, 1, 1, %21;"                                  \
               : INFINILM_WGMMA_8(d, 0), INFINILM_WGMMA_8(d, 2)                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(x), "n"(kColumns))
#define INFINILM_WGMMA_64_ROWS(type)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                         \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
               "{%32, %33, %34, %35}, %36, 1, 1, 1, %37;"                                          \
               : INFINILM_WGMMA_8(d, 0), INFINILM_WGMMA_8(d, 2), INFINILM_WGMMA_8(d, 4),           \
                 INFINILM_WGMMA_8(d, 6)                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(x), "n"(kColumns))
#define INFINILM_WGMMA_128_ROWS(type)                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                        \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
               "{%64, %65, %66, %67}, %68, 1, 1, 1, %69;"                                          \
               : INFINILM_WGMMA_8(d, 0), INFINILM_WGMMA_8(d, 2), INFINILM_WGMMA_8(d, 4),           \
                 INFINILM_WGMMA_8(d, 6), INFINILM_WGMMA_8(d, 8), INFINILM_WGMMA_8(d, 10),          \
                 INFINILM_WGMMA_8(d, 12), INFINILM_WGMMA_8(d, 14)                                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(x), "n"(kColumns))

// kColumns: x lies column by column.
template <bool kF16, bool kColumns = false>
__device__ __forceinline__ void multiply_described(float (&d)[4][4], const unsigned (&a)[4],
                                                   std::uint64_t x) {
  if constexpr (kF16) {
    INFINILM_WGMMA_32_ROWS("f16");
  } else {
    INFINILM_WGMMA_32_ROWS("bf16");
  }
}
template <bool kF16, bool kColumns = false>
__device__ __forceinline__ void multiply_described(float (&d)[8][4], const unsigned (&a)[4],
                                                   std::uint64_t x) {
  if constexpr (kF16) {
    INFINILM_WGMMA_64_ROWS("f16");
  } else {
    INFINILM_WGMMA_64_ROWS("bf16");
  }
}
template <bool kF16, bool kColumns = false>
__device__ __forceinline__ void multiply_described(float (&d)[16][4], const unsigned (&a)[4],
                                                   std::uint64_t x) {
  if constexpr (kF16) {
    INFINILM_WGMMA_128_ROWS("f16");
  } else {
    INFINILM_WGMMA_128_ROWS("bf16");
  }
}
#endif

// d += a x for 16 columns, number `step` of x: a as `multiply` takes it, d[n] as for rows 8 n … 8 n + 7.
template <bool kF16, int kCount>
__device__ __forceinline__ void multiply_wide(float (&d)[kCount][4], const unsigned (&a)[4],
                                              std::uint16_t* x, int step) {
  constexpr int kRows = kCount * 8;
#if defined(INFINILM_WGMMA)
  multiply_described<kF16>(d, a, describe_wide<kRows>(place_in_wide<kRows>(x, step, 0, 0)));
#else
  const int lane = lane_index();
#pragma unroll
  for (int n = 0; n < kCount; n += 2) {
    const int row = (n + lane / 16) * 8 + lane % 8, half = lane / 8 % 2;
    const uint4 b = load_matrices<false>(place_in_wide<kRows>(x, step, half, row));
    multiply<kF16>(d[n], a, b.x, b.y);
    multiply<kF16>(d[n + 1], a, b.z, b.w);
  }
#endif
}

}  // namespace infinilm::cuda
