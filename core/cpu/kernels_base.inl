// What all kernels share. A simd_*.hpp comes before.
#pragma once

#include "cpu/kernels.hpp"

namespace infinilm::cpu::INFINILM_ISA {

using i64 = std::int64_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

constexpr int kNr = kWidth * kVectors;

static_assert(kPanelsPerTask * kChunkStrips * kMaxStrip * kNr <= kTileFloats);
static_assert(kPanelsPerTask <= kMaxPanels && kDepthBlock % 2 == 0);

inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
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
