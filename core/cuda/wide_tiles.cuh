// Tiles of 64 rows in shared memory and their products by four warps together (wide.cuh), for attention.
//
// A tile [64, kD] of 16-bit floats lies in panels of 64 columns, [kD / 64][64][64]: a row of a panel has 128 bytes, of which the 16
// bytes number c lie in place c ^ (row % 8). So eight rows of one column, and eight columns of one row, are in different banks; wgmma
// knows this as its swizzling of 128 bytes (PTX ISA, asynchronous warpgroup level matrix shared memory layout). Tiles begin at
// multiples of 1024 bytes.
#pragma once

#include "cuda/wide.cuh"

namespace infinilm::cuda {

inline constexpr int kTileOfRows = 64, kPanelElements = 64 * 64;

template <int kD>
inline constexpr int kTileElements = kD / 64 * kPanelElements;

// Where eight neighbouring columns of a row lie, of which `column` is the first.
__device__ __forceinline__ std::uint16_t* place_in_tile(std::uint16_t* tile, int row, int column) {
  return tile + column / 64 * kPanelElements + row * 64 + ((column / 8 % 8) ^ (row % 8)) * 8;
}

#if defined(INFINILM_WGMMA)
// What wgmma is told of a tile: swizzling of 128 bytes, bytes from 8 rows to the next and, where columns are outputs, from a panel to the next.
__device__ __forceinline__ std::uint64_t describe_tile(const std::uint16_t* at) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(at));
  constexpr std::uint64_t kToPanel = kPanelElements * 2, kToRows = 8 * 128, kSwizzled = 1;
  return (address & 0x3ffffu) >> 4 | (kToPanel >> 4) << 16 | (kToRows >> 4) << 32 | kSwizzled << 62;
}

// d += a b^T: a and b tiles, 16 columns of each.
#define INFINILM_WGMMA_TILES(type)                                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                         \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
               "%32, %33, 1, 1, 1, 0, 0;"                                                          \
               : INFINILM_WGMMA_8(d, 0), INFINILM_WGMMA_8(d, 2), INFINILM_WGMMA_8(d, 4),           \
                 INFINILM_WGMMA_8(d, 6)                                                            \
               : "l"(a), "l"(b))
template <bool kF16>
__device__ __forceinline__ void multiply_described_tiles(float (&d)[8][4], std::uint64_t a,
                                                         std::uint64_t b) {
  if constexpr (kF16) {
    INFINILM_WGMMA_TILES("f16");
  } else {
    INFINILM_WGMMA_TILES("bf16");
  }
}
#endif

// d += a b^T for tiles [64, kD]: a warp has 16 rows of a, a lane what `multiply` gives it of them and of 8 n … 8 n + 7 of b's.
template <bool kF16, int kD>
__device__ __forceinline__ void multiply_tiles(float (&d)[8][4], std::uint16_t* a,
                                               std::uint16_t* b) {
#if defined(INFINILM_WGMMA)
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    const int at = step / 4 * kPanelElements +
                   step % 4 * 16;  // the rows' places are counted from a multiple of 1024 bytes
    multiply_described_tiles<kF16>(d, describe_tile(a + at), describe_tile(b + at));
  }
#else
  const int lane = lane_index();
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    const int of_a = warp_index() % 4 * 16 + lane % 16;
    const uint4 v = load_matrices<false>(place_in_tile(a, of_a, step * 16 + lane / 16 * 8));
    const unsigned q[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      const int of_b = 8 * (n + lane / 16) + lane % 8;
      const uint4 w = load_matrices<false>(place_in_tile(b, of_b, step * 16 + lane / 8 % 2 * 8));
      multiply<kF16>(d[n], q, w.x, w.y);
      multiply<kF16>(d[n + 1], q, w.z, w.w);
    }
  }
#endif
}

// d += a b: a [64, 64] in registers, as `multiply` takes it for each 16 of its columns; b a tile [64, kD], of which a lane has columns 8 n … 8 n + 7.
template <bool kF16, int kD>
__device__ __forceinline__ void multiply_rows(float (&d)[kD / 8][4], const unsigned (&a)[4][4],
                                              std::uint16_t* b) {
#if defined(INFINILM_WGMMA)
#pragma unroll
  for (int k = 0; k < 4; ++k)
    multiply_described<kF16, true>(d, a[k], describe_tile(b + k * 16 * 64));
#else
  const int lane = lane_index();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int n = 0; n < kD / 8; n += 2) {
      const int row = k * 16 + lane / 8 % 2 * 8 + lane % 8;
      const uint4 w = load_matrices<true>(place_in_tile(b, row, 8 * (n + lane / 16)));
      multiply<kF16>(d[n], a[k], w.x, w.y);
      multiply<kF16>(d[n + 1], a[k], w.z, w.w);
    }
  }
#endif
}

}  // namespace infinilm::cuda
