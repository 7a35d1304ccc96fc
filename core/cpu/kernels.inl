// All kernels, once per instruction set: a kernels_*.cpp defines INFINILM_ISA (a namespace), includes a simd_*.hpp and
// then this file. Nothing here may use the standard library, see kernels.hpp.
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

#include "cpu/kernels_math.inl"
#include "cpu/kernels_pack.inl"
#include "cpu/kernels_gemm.inl"
#include "cpu/kernels_rows.inl"
#include "cpu/kernels_attention.inl"

namespace infinilm::cpu::INFINILM_ISA {

inline Kernels make_table(const char* name) {
  Kernels k;
  k.name = name;
  k.nr = kNr;
  k.panels_per_task = kPanelsPerTask;
  k.pack_rows = pack_rows;
  k.gemm = gemm;
  k.store = store_tile;
  k.store_act_mul = store_act_mul;
  k.pack_panel = pack_panel;
  k.unpack_row = unpack_row;
  k.widen_row = widen_row;
  k.rms_norm = rms_norm;
  k.act_mul = act_mul;
  k.add = add_row;
  k.rope = rope;
  k.softmax = softmax;
  k.attend = attend;
  k.merge = merge;
  k.finish = finish;
  k.block_scores = block_scores;
  k.block_mix = block_mix;
  return k;
}

}  // namespace infinilm::cpu::INFINILM_ISA
