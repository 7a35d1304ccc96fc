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
// Measured, AMD Zen 3 (2.45 GHz, 2 cores), K = 2048, N = 8192: see benchmarks/README.md.

namespace infinilm::cpu::INFINILM_ISA {

struct LoadF32 {
  using Element = float;
  static F at(const float* p) { return load(p); }
};
struct LoadF16 {
  using Element = u16;
  static F at(const u16* p) { return f16(p); }
};

// The panels' next cache lines, about 1 KiB ahead: for tiles that stream weights from memory.
template <int kBytes>
inline void prefetch(const void* p) {
  for (int offset = 0; offset < kBytes; offset += 64) {
    __builtin_prefetch(static_cast<const char*>(p) + 1024 + offset, 0, 3);
  }
}

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

// c[p][r][n] (+)= sum of a[k * AK + r * AR] b[p][k][n]; rows of b are ldb elements apart.
template <class Load, int MR, int NV, int P, int AK, int AR>
inline void multiply(const float* a, const typename Load::Element* const* b, i64 ldb, i64 depth, float* const* c, i64 ldc,
                     bool first) {
  Accumulators<MR, NV, P> acc;
  acc.clear();
  const typename Load::Element* row[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p];
  for (i64 k = 0; k < depth; ++k) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if constexpr (MR <= 2) prefetch<NV * kWidth * static_cast<int>(sizeof(row[p][0]))>(row[p]);
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
    }
    a += AK;
  }
  acc.store_to(c, ldc, first);
}

// The same for pairs of bfloat16, widened: `depth` is even.
template <int MR, int P>
inline void multiply_pairs(const float* a, const u32* const* b, i64 depth, float* const* c, i64 ldc, bool first) {
  Accumulators<MR, kVectors, P> acc;
  acc.clear();
  const u32* row[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p];
  for (i64 k = 0; k < depth; k += 2) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if constexpr (MR <= 2) prefetch<kNr * 4>(row[p]);
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
  acc.store_to(c, ldc, first);
}

#ifdef INFINILM_NATIVE_BF16
// The same where both are bfloat16 and the processor multiplies pairs: a[k / 2][r].
template <int MR, int P>
inline void multiply_dot(const u32* a, const u32* const* b, i64 depth, float* const* c, i64 ldc, bool first) {
  Accumulators<MR, kVectors, P> acc;
  acc.clear();
  const u32* row[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) row[p] = b[p];
  for (i64 k = 0; k < depth; k += 2) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if constexpr (MR <= 2) prefetch<kNr * 4>(row[p]);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) acc.v[p][r][j] = dot_bf16(acc.v[p][r][j], a[r], row[p] + j * kWidth);
      row[p] += kNr;
    }
    a += MR;
  }
  acc.store_to(c, ldc, first);
}
#endif

enum class Kind { F32, F16, Pairs, Dot };

template <Kind kKind, int MR, int P>
inline void run_tile(const float* a, const std::byte* const* b, i64 depth, float* const* c, bool first) {
  const float* f32[P];
  const u16* f16s[P];
  const u32* pairs[P];
  for (int p = 0; p < P; ++p) {
    f32[p] = reinterpret_cast<const float*>(b[p]);
    f16s[p] = reinterpret_cast<const u16*>(b[p]);
    pairs[p] = reinterpret_cast<const u32*>(b[p]);
  }
  if constexpr (kKind == Kind::F32) multiply<LoadF32, MR, kVectors, P, MR, 1>(a, f32, kNr, depth, c, kNr, first);
  if constexpr (kKind == Kind::F16) multiply<LoadF16, MR, kVectors, P, MR, 1>(a, f16s, kNr, depth, c, kNr, first);
  if constexpr (kKind == Kind::Pairs) multiply_pairs<MR, P>(a, pairs, depth, c, kNr, first);
#ifdef INFINILM_NATIVE_BF16
  if constexpr (kKind == Kind::Dot) {
    multiply_dot<MR, P>(reinterpret_cast<const u32*>(a), pairs, depth, c, kNr, first);
  }
#endif
}

// As many panels side by side as there are, up to kPanelsAtOnce / MR.
template <Kind kKind, int MR>
void run_panels(const float* a, const std::byte* const* b, int panels, i64 depth, float* const* c, bool first) {
  constexpr int kWide = kPanelsAtOnce / MR;
  int p = 0;
  if constexpr (kWide >= 4) {
    for (; p + 4 <= panels; p += 4) run_tile<kKind, MR, 4>(a, b + p, depth, c + p, first);
  }
  if constexpr (kWide >= 2) {
    for (; p + 2 <= panels; p += 2) run_tile<kKind, MR, 2>(a, b + p, depth, c + p, first);
  }
  for (; p < panels; ++p) run_tile<kKind, MR, 1>(a, b + p, depth, c + p, first);
}

template <Kind kKind>
inline void run_strip(i64 rows, const float* a, const std::byte* const* b, int panels, i64 depth, float* const* c, bool first) {
  switch (rows) {
    case 1: return run_panels<kKind, 1>(a, b, panels, depth, c, first);
    case 2: return run_panels<kKind, 2>(a, b, panels, depth, c, first);
    case 3: return run_panels<kKind, 3>(a, b, panels, depth, c, first);
    case 4: return run_panels<kKind, 4>(a, b, panels, depth, c, first);
    case 5: return run_panels<kKind, 5>(a, b, panels, depth, c, first);
    default: return run_panels<kKind, 6>(a, b, panels, depth, c, first);
  }
}

// A block of a panel as float32 [depth][kNr]: worth its price where several strips read it.
inline void widen_block(const std::byte* block, Format format, i64 depth, float* out) {
  if (format == Format::F16) {
    const u16* p = reinterpret_cast<const u16*>(block);
    for (i64 i = 0; i < depth * kNr; i += kWidth) store(out + i, f16(p + i));
    return;
  }
  const u32* p = reinterpret_cast<const u32*>(block);
  for (i64 k = 0; k < depth; k += 2, p += kNr, out += 2 * kNr) {
    for (int j = 0; j < kNr; j += kWidth) {
      store(out + j, bf16_even(p + j));
      store(out + kNr + j, bf16_odd(p + j));
    }
  }
}

// One block of K, from k0 on, of a task.
template <Kind kKind>
inline void gemm_block(const GemmTask& t, i64 k0, i64 depth, i64 packed_depth, const std::byte* const* b) {
  const i64 first_row = strip_row(t.rows, t.strip_begin);
  const i64 chunk = strip_row(t.rows, t.strip_end) - first_row;
  const float* packed = static_cast<const float*>(t.a) + (kKind == Kind::Dot ? k0 * t.rows / 2 : k0 * t.rows);
  const bool streams = t.strip_end - t.strip_begin == 1;
  const int step = streams ? t.panel_count : 1;
  for (int p = 0; p < t.panel_count; p += step) {
    for (i64 strip = t.strip_begin; strip < t.strip_end; ++strip) {
      const i64 row = strip_row(t.rows, strip);
      const i64 rows = strip_row(t.rows, strip + 1) - row;
      float* c[kMaxPanels];
      for (int i = 0; i < step; ++i) c[i] = t.out + ((p + i) * chunk + row - first_row) * kNr;
      const float* a = packed + (kKind == Kind::Dot ? row * packed_depth / 2 : row * packed_depth);
      run_strip<kKind>(rows, a, b + p, step, depth, c, k0 == 0);
    }
  }
}

void gemm(const GemmTask& t) noexcept {
  constexpr i64 kWorthWidening = 3;  // strips
  const bool dot = kNativeBf16 && t.round_bf16;
  const bool widen = t.format != Format::F32 && !dot && t.strip_end - t.strip_begin >= kWorthWidening;
  const i64 size = t.format == Format::F32 ? 4 : 2;
  const i64 padded = padded_depth(t.depth);
  const i64 all = t.format == Format::Bf16 ? padded : t.depth;
  if (all == 0) {  // empty sums
    const i64 chunk = strip_row(t.rows, t.strip_end) - strip_row(t.rows, t.strip_begin);
    for (i64 i = 0; i < t.panel_count * chunk * kNr; ++i) t.out[i] = 0.0f;
  }
  alignas(64) float wide[kDepthBlock * kNr];
  for (i64 k0 = 0; k0 < all; k0 += kDepthBlock) {
    const i64 depth = smaller(kDepthBlock, all - k0);
    const i64 packed_depth = smaller(kDepthBlock, padded - k0);
    const std::byte* b[kMaxPanels];
    for (int p = 0; p < t.panel_count; ++p) b[p] = t.panels[p] + k0 * kNr * size;
    if (dot) {
#ifdef INFINILM_NATIVE_BF16
      gemm_block<Kind::Dot>(t, k0, depth, packed_depth, b);
#endif
    } else if (widen) {
      GemmTask one = t;
      const i64 chunk = strip_row(t.rows, t.strip_end) - strip_row(t.rows, t.strip_begin);
      one.panel_count = 1;
      for (int p = 0; p < t.panel_count; ++p) {
        widen_block(b[p], t.format, depth, wide);
        const std::byte* block = reinterpret_cast<const std::byte*>(wide);
        one.out = t.out + p * chunk * kNr;
        gemm_block<Kind::F32>(one, k0, depth, packed_depth, &block);
      }
    } else if (t.format == Format::F32) {
      gemm_block<Kind::F32>(t, k0, depth, packed_depth, b);
    } else if (t.format == Format::F16) {
      gemm_block<Kind::F16>(t, k0, depth, packed_depth, b);
    } else {
      gemm_block<Kind::Pairs>(t, k0, depth, packed_depth, b);
    }
  }
}

void store_tile(const StoreTile& s) noexcept {
  for (i64 r = 0; r < s.rows; ++r) {
    const float* tile = s.tile + r * kNr;
    float* y = s.y + r * s.stride;
    for (i64 j = 0; j < s.cols; j += kWidth) {
      const i64 n = smaller(kWidth, s.cols - j);
      F v = load(tile + j);
      if (s.bias) v = add(v, n == kWidth ? load(s.bias + j) : load_part(s.bias + j, n));
      if (s.residual) v = add(n == kWidth ? load(y + j) : load_part(y + j, n), v);
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
    case Act::Silu: return store_act_mul_as<Act::Silu>(s);
    case Act::Gelu: return store_act_mul_as<Act::Gelu>(s);
    case Act::GeluTanh: return store_act_mul_as<Act::GeluTanh>(s);
    case Act::Relu: return store_act_mul_as<Act::Relu>(s);
  }
}

}  // namespace infinilm::cpu::INFINILM_ISA
