// out[r][n] = sum over k of x[r][k] w[n][k], register tiles of 1...6 rows by kNr outputs.
//
//            n: kNr outputs                  AVX2: 6 x 16 floats in 12 registers, 2 of weights, 1 broadcast
//          +----------------+                AVX-512: 6 x 64 in 24, 4 of weights, broadcasts from memory
//   x: k > | panel [K][kNr] |
//   +---+  +----------------+
//   | r |  | tile           |
//
// K is summed in blocks of kDepthBlock: one chain of fused multiply-adds from zero for each block, the blocks' sums added in
// order. That order is the same for every number of rows, so a row gives the same bits alone and in a batch.
// One row reads kPanelsAtOnce panels side by side, which gives as many chains as hide the latency.
//
// Measured with AVX2 on one AMD Zen 3 core (99 GFLOP/s float32, 24 GB/s from memory), K = 2048, N = 8192, float32:
// 512 rows 83-85 % of the arithmetic, 96 rows 90 %; one row 22-24 GB/s of weights; bfloat16 and float16 weights likewise.
#pragma once

#ifdef INFINILM_AMX
#include "cpu/kernels_amx.inl"
#endif
#include "cpu/kernels_base.inl"
#include "cpu/kernels_math.inl"
#include "cpu/kernels_quant.inl"

namespace infinilm::cpu::INFINILM_ISA {

struct LoadF32 {
  using Element = float;
  static F at(const float* p) { return load(p); }
};
struct LoadF16 {
  using Element = u16;
  static F at(const u16* p) { return f16(p); }
};

// Asks for the cache lines that `kBytes` bytes at p touch, if kAhead.
template <bool kAhead, int kBytes>
inline void prefetch(const char* p) {
  if constexpr (kAhead) {
    for (int offset = 0; offset < kBytes; offset += 64) __builtin_prefetch(p + offset, 0, 3);
  }
}
// How far ahead of itself a tile asks for its panel.
constexpr int kAheadBytes = 1024;

template <int MR, int NV, int P>
struct Accumulators {
  F v[P][MR][NV];

  void clear() {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) v[p][r][j] = zero();
  }

  void store_to(float* const* c, i64 ldc, bool first) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
          float* out = c[p] + r * ldc + j * kWidth;
          store(out, first ? v[p][r][j] : add(load(out), v[p][r][j]));
        }
  }
};

// c[p][r][n] (+)= sum of a[k * AK + r * AR] b[p][k][n]; rows of b are ldb elements apart. With kAhead, each step also
// asks for as many bytes from `ahead[p]` on as it reads of b[p].
template <class Load, int MR, int NV, int P, int AK, int AR, bool kAhead>
inline void multiply(const float* a, const typename Load::Element* const* b, i64 ldb, i64 depth,
                     float* const* c, i64 ldc, bool first, const char* const* ahead) {
  constexpr int kBytes = NV * kWidth * static_cast<int>(sizeof(typename Load::Element));
  Accumulators<MR, NV, P> acc;
  acc.clear();
  const typename Load::Element* row[P];
  const char* next[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p], next[p] = kAhead ? ahead[p] : nullptr;
  for (i64 k = 0; k < depth; ++k) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      prefetch<kAhead, kBytes>(next[p]);
      F w[NV];
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) w[j] = Load::at(row[p] + j * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const F x = set1(a[r * AR]);
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) acc.v[p][r][j] = fma(x, w[j], acc.v[p][r][j]);
      }
      row[p] += ldb;
      if constexpr (kAhead) next[p] += kBytes;
    }
    a += AK;
  }
  acc.store_to(c, ldc, first);
}

// The same for pairs of bfloat16, widened: `depth` is even. Asks for its own panels, kAheadBytes ahead.
template <int MR, int P, bool kAhead>
inline void multiply_pairs(const float* a, const u32* const* b, i64 depth, float* const* c,
                           bool first) {
  Accumulators<MR, kVectors, P> acc;
  acc.clear();
  const u32* row[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p];
  for (i64 k = 0; k < depth; k += 2) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      prefetch<kAhead, kNr * 4>(reinterpret_cast<const char*>(row[p]) + kAheadBytes);
      F w[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) w[j] = bf16_even(row[p] + j * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const F x = set1(a[r]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) acc.v[p][r][j] = fma(x, w[j], acc.v[p][r][j]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) w[j] = bf16_odd(row[p] + j * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const F x = set1(a[MR + r]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) acc.v[p][r][j] = fma(x, w[j], acc.v[p][r][j]);
      }
      row[p] += kNr;
    }
    a += 2 * MR;
  }
  acc.store_to(c, kNr, first);
}

#if defined(INFINILM_NATIVE_BF16) && !defined(INFINILM_AMX)
// The same where both are bfloat16 and the processor multiplies pairs: a[k / 2][r].
template <int MR, int P, int kAhead>
inline void multiply_dot(const u32* a, const u32* const* b, i64 depth, float* const* c,
                         bool first) {
  Accumulators<MR, kVectors, P> acc;
  acc.clear();
  const u32* row[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p];
  for (i64 k = 0; k < depth; k += 2) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      prefetch<kAhead != 0, kNr * 4>(reinterpret_cast<const char*>(row[p]) + kAhead);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j)
          acc.v[p][r][j] = dot_bf16(acc.v[p][r][j], a[r], row[p] + j * kWidth);
      row[p] += kNr;
    }
    a += MR;
  }
  acc.store_to(c, kNr, first);
}
#endif

enum class Kind { F32, F16, Pairs, Dot };

template <Kind kKind, int MR, int P, int kAhead>
inline void run_tile(const float* a, const std::byte* const* b, i64 depth, float* const* c,
                     bool first) {
  const float* f32[P];
  const u16* f16s[P];
  const u32* pairs[P];
  const char* ahead[P];
  for (int p = 0; p < P; ++p) {
    f32[p] = reinterpret_cast<const float*>(b[p]);
    f16s[p] = reinterpret_cast<const u16*>(b[p]);
    pairs[p] = reinterpret_cast<const u32*>(b[p]);
    ahead[p] = reinterpret_cast<const char*>(b[p]) + kAheadBytes;
  }
  if constexpr (kKind == Kind::F32) {
    multiply<LoadF32, MR, kVectors, P, MR, 1, kAhead != 0>(a, f32, kNr, depth, c, kNr, first,
                                                           ahead);
  }
  if constexpr (kKind == Kind::F16) {
    multiply<LoadF16, MR, kVectors, P, MR, 1, kAhead != 0>(a, f16s, kNr, depth, c, kNr, first,
                                                           ahead);
  }
  if constexpr (kKind == Kind::Pairs) multiply_pairs<MR, P, kAhead != 0>(a, pairs, depth, c, first);
#if defined(INFINILM_NATIVE_BF16) && !defined(INFINILM_AMX)
  if constexpr (kKind == Kind::Dot) {
    multiply_dot<MR, P, kAhead>(reinterpret_cast<const u32*>(a), pairs, depth, c, first);
  }
#endif
}

// Panels that a tile of `rows` rows reads side by side.
constexpr int panels_at_once(i64 rows) {
  return rows < kPanelsAtOnce ? static_cast<int>(kPanelsAtOnce / rows) : 1;
}

template <Kind kKind, int MR, int kAhead>
void run_panels(const float* a, const std::byte* const* b, int panels, i64 depth, float* const* c,
                bool first) {
  constexpr int kWide = panels_at_once(MR);
  int p = 0;
  if constexpr (kWide >= 4) {
    for (; p + 4 <= panels; p += 4) run_tile<kKind, MR, 4, kAhead>(a, b + p, depth, c + p, first);
  }
  if constexpr (kWide >= 2) {
    for (; p + 2 <= panels; p += 2) run_tile<kKind, MR, 2, kAhead>(a, b + p, depth, c + p, first);
  }
  for (; p < panels; ++p) run_tile<kKind, MR, 1, kAhead>(a, b + p, depth, c + p, first);
}

// kAhead: how many bytes ahead in its panels a strip asks for them; 0: not at all.
template <Kind kKind, int kAhead>
inline void run_strip(i64 rows, const float* a, const std::byte* const* b, int panels, i64 depth,
                      float* const* c, bool first) {
  switch (rows) {
    case 1:
      return run_panels<kKind, 1, kAhead>(a, b, panels, depth, c, first);
    case 2:
      return run_panels<kKind, 2, kAhead>(a, b, panels, depth, c, first);
    case 3:
      return run_panels<kKind, 3, kAhead>(a, b, panels, depth, c, first);
    case 4:
      return run_panels<kKind, 4, kAhead>(a, b, panels, depth, c, first);
    case 5:
      return run_panels<kKind, 5, kAhead>(a, b, panels, depth, c, first);
    default:
      return run_panels<kKind, 6, kAhead>(a, b, panels, depth, c, first);
  }
}

// A block of a panel as float32 [depth][kNr]: worth its price where several strips read it.
inline void widen_block(const std::byte* block, Format format, i64 depth, float* out) {
  if (format == Format::F16) {
    const u16* p = reinterpret_cast<const u16*>(block);
    for (i64 i = 0; i < depth * kNr; i += kWidth) {
      prefetch<true, kWidth * 2>(reinterpret_cast<const char*>(p + i) + kAheadBytes);
      store(out + i, f16(p + i));
    }
    return;
  }
  const u32* p = reinterpret_cast<const u32*>(block);
  for (i64 k = 0; k < depth; k += 2, p += kNr, out += 2 * kNr) {
    prefetch<true, kNr * 4>(reinterpret_cast<const char*>(p) + kAheadBytes);
    for (int j = 0; j < kNr; j += kWidth) {
      store(out + j, bf16_even(p + j));
      store(out + kNr + j, bf16_odd(p + j));
    }
  }
}

// The block of K from k0 on: panels [p, p + count) of a task. The first strip of rows brings the panels into the cache.
template <Kind kKind>
inline void gemm_block(const GemmTask& t, i64 k0, i64 depth, int p, int count,
                       const std::byte* const* b) {
  constexpr int kPairs = kKind == Kind::Dot ? 2 : 1;
  // Of the pairs' panels, which few strips read as fast as the memory gives them: the second strip asks for what comes next.
  constexpr int kNextBlock = kKind == Kind::Dot ? kDepthBlock * kNr * 2 : 0;
  const bool few = t.strip_end - t.strip_begin <= 4;
  const i64 packed_depth = smaller(kDepthBlock, padded(t.depth) - k0);
  const i64 first_row = strip_row(t.rows, t.strip_begin);
  const i64 chunk = strip_row(t.rows, t.strip_end) - first_row;
  const float* packed = static_cast<const float*>(t.a) + k0 * t.rows / kPairs;
  for (i64 strip = t.strip_begin; strip < t.strip_end; ++strip) {
    const i64 row = strip_row(t.rows, strip);
    const i64 rows = strip_row(t.rows, strip + 1) - row;
    float* c[kMaxPanels];
    for (int i = 0; i < count; ++i) c[i] = t.out + ((p + i) * chunk + row - first_row) * kNr;
    const float* a = packed + row * packed_depth / kPairs;
    if (strip == t.strip_begin) {
      run_strip<kKind, kAheadBytes>(rows, a, b, count, depth, c, k0 == 0);
    } else if (few && strip == t.strip_begin + 1) {
      run_strip<kKind, kNextBlock>(rows, a, b, count, depth, c, k0 == 0);
    } else {
      run_strip<kKind, 0>(rows, a, b, count, depth, c, k0 == 0);
    }
  }
}

// Where rows are few, some panels are read to their end before the next, else all panels block by block.
template <Kind kKind>
inline void gemm_as(const GemmTask& t, i64 all, i64 size) {
  const bool streams = t.strip_end - t.strip_begin == 1;
  const int at_once =
      streams ? panels_at_once(strip_row(t.rows, t.strip_end) - strip_row(t.rows, t.strip_begin))
              : 1;
  const int outer = streams ? at_once : t.panel_count;
  for (int p0 = 0; p0 < t.panel_count; p0 += outer) {
    const int p1 = p0 + outer < t.panel_count ? p0 + outer : t.panel_count;
    for (i64 k0 = 0; k0 < all; k0 += kDepthBlock) {
      const i64 depth = smaller(kDepthBlock, all - k0);
      for (int p = p0; p < p1; p += at_once) {
        const int count = p + at_once < p1 ? at_once : p1 - p;
        const std::byte* b[kMaxPanels];
        for (int i = 0; i < count; ++i) b[i] = t.panels[p + i] + k0 * kNr * size;
        gemm_block<kKind>(t, k0, depth, p, count, b);
      }
    }
  }
}

// Several strips of rows: each block of a 16-bit panel is widened once.
inline void gemm_widened(const GemmTask& t, i64 all) {
  alignas(64) float wide[kDepthBlock * kNr];
  const std::byte* block = reinterpret_cast<const std::byte*>(wide);
  for (i64 k0 = 0; k0 < all; k0 += kDepthBlock) {
    const i64 depth = smaller(kDepthBlock, all - k0);
    for (int p = 0; p < t.panel_count; ++p) {
      widen_block(t.panels[p] + k0 * kNr * 2, t.format, depth, wide);
      gemm_block<Kind::F32>(t, k0, depth, p, 1, &block);
    }
  }
}

// Each block of a quantised panel is widened once, to what the rows are multiplied in.
inline void gemm_quantised(const GemmTask& t, i64 all) {
  alignas(64) float wide[kDepthBlock * kNr];
  const std::byte* block = reinterpret_cast<const std::byte*>(wide);
  for (i64 k0 = 0; k0 < all; k0 += kDepthBlock) {
    const i64 depth = smaller(kDepthBlock, all - k0);
    for (int p = 0; p < t.panel_count; ++p) {
#if defined(INFINILM_NATIVE_BF16) && !defined(INFINILM_AMX)
      if (t.round_bf16) {
        round_quantised(t.panels[p], t.quant, k0, depth, reinterpret_cast<u32*>(wide));
        gemm_block<Kind::Dot>(t, k0, depth, p, 1, &block);
        continue;
      }
#endif
      widen_quantised(t.panels[p], t.quant, k0, depth, wide);
      gemm_block<Kind::F32>(t, k0, depth, p, 1, &block);
    }
  }
}

void gemm(const GemmTask& t) noexcept {
  constexpr i64 kWorthWidening = 3;  // strips
  const i64 all = t.format == Format::F32 || t.format == Format::F16 ? t.depth : padded(t.depth);
  if (all == 0) {  // empty sums
    const int size = t.round_bf16 ? kRoundedStrip : kMaxStrip;
    const i64 chunk = strip_row(t.rows, t.strip_end, size) - strip_row(t.rows, t.strip_begin, size);
    for (i64 i = 0; i < t.panel_count * chunk * kNr; ++i) t.out[i] = 0.0f;
    return;
  }
#ifdef INFINILM_NATIVE_BF16
  if (t.planes != 0) return gemm_integers(t);
#endif
#ifdef INFINILM_AMX
  if (t.round_bf16) return gemm_tiles(t);
#endif
  if (t.format == Format::Quantised) return gemm_quantised(t, all);
  if (t.format == Format::F32) return gemm_as<Kind::F32>(t, all, 4);
#if defined(INFINILM_NATIVE_BF16) && !defined(INFINILM_AMX)
  if (t.round_bf16) return gemm_as<Kind::Dot>(t, all, 2);
#endif
  if (t.strip_end - t.strip_begin >= kWorthWidening) return gemm_widened(t, all);
  if (t.format == Format::F16) return gemm_as<Kind::F16>(t, all, 2);
  gemm_as<Kind::Pairs>(t, all, 2);
}

void store_tile(const StoreTile& s) noexcept {
  for (i64 r = 0; r < s.rows; ++r) {
    const float* tile = s.tile + r * kNr;
    float* y = s.y + r * s.stride;
    const float* before = s.residual ? s.residual + r * s.residual_stride : nullptr;
    for (i64 j = 0; j < s.cols; j += kWidth) {
      const i64 n = smaller(kWidth, s.cols - j);
      F v = load(tile + j);
      if (s.bias) v = add(v, n == kWidth ? load(s.bias + j) : load_part(s.bias + j, n));
      if (before) v = add(n == kWidth ? load(before + j) : load_part(before + j, n), v);
      if (n == kWidth) {
        store(y + j, v);
      } else {
        store_part(y + j, v, n);
      }
    }
  }
}

template <Act kAct>
inline void store_act_mul_as(const StoreTile& s) {
  for (i64 r = 0; r < s.rows; ++r) {
    float* y = s.y + r * s.stride;
    for (i64 j = 0; j < s.cols; j += kWidth) {
      const i64 n = smaller(kWidth, s.cols - j);
      F gate = load(s.tile + r * kNr + j);
      F up = load(s.tile_up + r * kNr + j);
      if (s.bias) gate = add(gate, n == kWidth ? load(s.bias + j) : load_part(s.bias + j, n));
      if (s.bias_up) up = add(up, n == kWidth ? load(s.bias_up + j) : load_part(s.bias_up + j, n));
      const F v = mul(activate<kAct>(gate), up);
      if (n == kWidth) {
        store(y + j, v);
      } else {
        store_part(y + j, v, n);
      }
    }
  }
}

void store_act_mul(const StoreTile& s) noexcept {
  switch (s.act) {
    case Act::Silu:
      return store_act_mul_as<Act::Silu>(s);
    case Act::Gelu:
      return store_act_mul_as<Act::Gelu>(s);
    case Act::GeluTanh:
      return store_act_mul_as<Act::GeluTanh>(s);
    case Act::Relu:
      return store_act_mul_as<Act::Relu>(s);
  }
}

}  // namespace infinilm::cpu::INFINILM_ISA
