// Tiles of rows in shared memory and their products by four warps together (wide.cuh), for attention.
//
// A tile [rows, kD] of 16-bit floats lies in panels of 64 columns, [kD / 64][rows][64]: a row of a panel has 128 bytes, of which the 16
// bytes number c lie in place c ^ (row % 8). So eight rows of one column, and eight columns of one row, are in different banks; wgmma
// knows this as its swizzling of 128 bytes (PTX ISA, asynchronous warpgroup level matrix shared memory layout). Tiles begin at
// multiples of 1024 bytes.
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/tile_map.hpp"
#include "cuda/wide.cuh"

namespace infinilm::cuda {

inline constexpr int kPanelColumns = 64;
template <int kRows>
inline constexpr int kPanelElements = kRows * kPanelColumns;
template <int kRows, int kD>
inline constexpr int kTileElements = kD / kPanelColumns * kPanelElements<kRows>;

// Where eight neighbouring columns of a row lie, of which `column` is the first.
template <int kRows>
__device__ __forceinline__ std::uint16_t* place_in_tile(std::uint16_t* tile, int row, int column) {
  return tile + column / kPanelColumns * kPanelElements<kRows> + row * kPanelColumns +
         ((column / 8 % 8) ^ (row % 8)) * 8;
}

// 64 columns of a head's 64 rows to 64 rows of a panel; zeros behind its columns. By one thread; the arrival hears of 64 * 128 bytes.
#if defined(INFINILM_CUDA_EMULATED)
inline void copy_panel(std::uint16_t* panel, const TileMap& map, const std::byte* head, int column,
                       Arrival*) {
  const auto* rows = reinterpret_cast<const std::uint16_t*>(head);
  for (int i = 0; i < 64 * 8; ++i) {
    const int row = i / 8, d = column + i % 8 * 8;
    copy_async(panel + row * kPanelColumns + ((i % 8) ^ (row % 8)) * 8, rows + row * map.padded + d,
               d < map.padded);
  }
}
#else
__device__ __forceinline__ void copy_panel(std::uint16_t* panel, const TileMap& map,
                                           const std::byte* head, int column, Arrival* arrival) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const std::uint64_t address = reinterpret_cast<std::uint64_t>(head) - kTileMapBase;
  constexpr std::uint64_t kFar = std::uint64_t{1} << kTileMapFarShift;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(panel)),
      "l"(&map), "r"(column), "r"(0), "r"(static_cast<int>(address % kFar / kTileMapStep)),
      "r"(static_cast<int>(address / kFar)), "r"(shared_address(arrival))
      : "memory");
#endif
}
#endif

#if defined(INFINILM_WGMMA)
// What wgmma is told of a tile: swizzling of 128 bytes, bytes from 8 rows to the next and, where columns are outputs, from a panel to the next.
template <int kRows>
__device__ __forceinline__ std::uint64_t describe_tile(const std::uint16_t* at) {
  constexpr std::uint64_t kToPanel = kPanelElements<kRows> * 2, kToRows = 8 * 128, kSwizzled = 1;
  return (shared_address(at) & 0x3ffffu) >> 4 | (kToPanel >> 4) << 16 | (kToRows >> 4) << 32 |
         kSwizzled << 62;
}

// d = a b^T, or d += a b^T if kAdds: a [64, 16] and b [128, 16], columns of tiles.
#define INFINILM_WGMMA_TILES(type)                                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                        \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
               "%64, %65, %66, 1, 1, 0, 0;"                                                        \
               : INFINILM_WGMMA_8(d, 0), INFINILM_WGMMA_8(d, 2), INFINILM_WGMMA_8(d, 4),           \
                 INFINILM_WGMMA_8(d, 6), INFINILM_WGMMA_8(d, 8), INFINILM_WGMMA_8(d, 10),          \
                 INFINILM_WGMMA_8(d, 12), INFINILM_WGMMA_8(d, 14)                                  \
               : "l"(a), "l"(b), "n"(kAdds))
template <bool kF16, int kAdds>
__device__ __forceinline__ void multiply_described_tiles(float (&d)[16][4], std::uint64_t a,
                                                         std::uint64_t b) {
  if constexpr (kF16) {
    INFINILM_WGMMA_TILES("f16");
  } else {
    INFINILM_WGMMA_TILES("bf16");
  }
}
#endif

// d = a b^T for tiles a [64, kD] and b [128, kD]: a warp has 16 rows of a, a lane what `multiply` gives it of them and of 8 n … 8 n + 7
// of b's.
template <bool kF16, int kD>
__device__ __forceinline__ void multiply_tiles(float (&d)[16][4], std::uint16_t* a,
                                               std::uint16_t* b) {
#if defined(INFINILM_WGMMA)
  multiply_described_tiles<kF16, 0>(d, describe_tile<64>(a), describe_tile<128>(b));
#pragma unroll
  for (int step = 1; step < kD / 16; ++step) {
    // The rows' places are counted from a multiple of 1024 bytes.
    const int panel = step / 4, at = step % 4 * 16;
    multiply_described_tiles<kF16, 1>(d, describe_tile<64>(a + panel * kPanelElements<64> + at),
                                      describe_tile<128>(b + panel * kPanelElements<128> + at));
  }
#else
  const int lane = lane_index();
#pragma unroll
  for (int n = 0; n < 16; ++n) d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0.0f;
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    const int of_a = warp_index() % 4 * 16 + lane % 16;
    const uint4 v = load_matrices<false>(place_in_tile<64>(a, of_a, step * 16 + lane / 16 * 8));
    const unsigned q[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int n = 0; n < 16; n += 2) {
      const int of_b = 8 * (n + lane / 16) + lane % 8;
      const uint4 w =
          load_matrices<false>(place_in_tile<128>(b, of_b, step * 16 + lane / 8 % 2 * 8));
      multiply<kF16>(d[n], q, w.x, w.y);
      multiply<kF16>(d[n + 1], q, w.z, w.w);
    }
  }
#endif
}

// d += a b: a [64, 128] in registers, as `multiply` takes it for each 16 of its columns; b a tile [128, kD], of which a lane has columns
// 8 n … 8 n + 7.
template <bool kF16, int kD>
__device__ __forceinline__ void multiply_rows(float (&d)[kD / 8][4], const unsigned (&a)[8][4],
                                              std::uint16_t* b) {
#if defined(INFINILM_WGMMA)
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    multiply_described<kF16, true>(d, a[k], describe_tile<128>(b + k * 16 * kPanelColumns));
  }
#else
  const int lane = lane_index();
#pragma unroll
  for (int k = 0; k < 8; ++k) {
#pragma unroll
    for (int n = 0; n < kD / 8; n += 2) {
      const int row = k * 16 + lane / 8 % 2 * 8 + lane % 8;
      const uint4 w = load_matrices<true>(place_in_tile<128>(b, row, 8 * (n + lane / 16)));
      multiply<kF16>(d[n], a[k], w.x, w.y);
      multiply<kF16>(d[n + 1], a[k], w.z, w.w);
    }
  }
#endif
}

}  // namespace infinilm::cuda
