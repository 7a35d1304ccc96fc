// What all kernels share. A simd_*.hpp comes before.
#pragma once

#include "cpu/kernels.hpp"

namespace infinilm::cpu::INFINILM_ISA {

using i8 = std::int8_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

constexpr int kNr = kWidth * kVectors;

// Tiles of the matrix unit are 32 rows high at most and 32 of K wide.
#ifdef INFINILM_AMX
constexpr bool kTiles = true;
constexpr int kRoundedStrip = 32;
constexpr int kDepthStep = 32;
#else
constexpr bool kTiles = false;
constexpr int kRoundedStrip = kMaxStrip;
constexpr int kDepthStep = 2;
#endif

static_assert(kPanelsPerTask * kChunkRows * kNr <= kTileFloats);
static_assert(kChunkRows % kMaxStrip == 0 && kChunkRows % kRoundedStrip == 0);
static_assert(kPanelsPerTask <= kMaxPanels && kDepthBlock % kDepthStep == 0);

inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
inline i64 padded(i64 depth) { return padded_depth(depth, kDepthStep); }
inline i64 larger(i64 a, i64 b) { return a > b ? a : b; }

// The first n < kWidth floats at p, zeros behind them.
inline F load_part(const float* p, i64 n) {
  alignas(64) float lanes[kWidth] = {};
  for (i64 i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_part(float* p, F x, i64 n) {
  alignas(64) float lanes[kWidth];
  store(lanes, x);
  for (i64 i = 0; i < n; ++i) p[i] = lanes[i];
}

}  // namespace infinilm::cpu::INFINILM_ISA
