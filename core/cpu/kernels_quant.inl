// Quantised weights: widened block by block for many rows, multiplied as integers for few. See kernels.hpp for the layout.
//
// Few rows: the weights' bytes are the limit, and a code costs the least as it is. x becomes integers of 8, 16 or 24 bits
// with a scale for each run of columns, cut into planes of signed bytes; vpdpbusd multiplies each plane with the codes.
// Sums within a run are exact. With three planes x is as exact as in float32 (relative to the run's largest), with two
// more exact than in bfloat16.
#pragma once

#include "cpu/kernels_base.inl"

namespace infinilm::cpu::INFINILM_ISA {

struct Group {
  const u16* scales;
  const u8* zeros;  // null: the format's middle
  const u32* codes;
};

inline Group group_at(const std::byte* panel, const QuantFormat& format, i64 index) {
  const std::byte* p = panel + index * group_bytes(format, kNr);
  const std::byte* zeros = p + kNr * 2;
  return {reinterpret_cast<const u16*>(p),
          format.zeros ? reinterpret_cast<const u8*>(zeros) : nullptr,
          reinterpret_cast<const u32*>(zeros + (format.zeros ? kNr : 0))};
}

// Position of code i of eight in 32-bit lanes: which lane row of the eight, and from which bit on.
template <int kBits>
constexpr int lane_row(int i) {
  return kBits == 8 ? i / 4 : 0;
}
template <int kBits>
constexpr int lane_shift(int i) {
  return kBits == 8 ? i % 4 * 8 : i % 4 * 8 + i / 4 * 4;
}

// Eight columns of one vector of outputs: put(i, values of column i, of column i + 1) for i = 0, 2, 4, 6.
template <int kBits, class Put>
inline void widen_eight(const u32* codes, F scale, F zero_point, Put put) {
  constexpr int kRows = kBits == 8 ? kNr : 0;
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    const F a = field<kBits>(codes + lane_row<kBits>(i) * kRows, lane_shift<kBits>(i));
    const F b = field<kBits>(codes + lane_row<kBits>(i) * kRows, lane_shift<kBits>(i + 1));
    put(i, mul(sub(a, zero_point), scale), mul(sub(b, zero_point), scale));
  }
}

// Columns [k0, k0 + depth) of a panel, whole eights: put(k, j, a, b) gets columns k0 + k and k0 + k + 1 of vector j.
template <int kBits, class Put>
inline void widen_columns(const std::byte* panel, const QuantFormat& format, i64 k0, i64 depth,
                          Put put) {
  constexpr i64 kLanes = kNr * kBits / 4;  // of eight columns
  for (i64 k = k0; k < k0 + depth;) {
    const i64 index = k / format.group;
    const i64 end = smaller(k0 + depth, (index + 1) * format.group);
    const Group group = group_at(panel, format, index);
    for (; k < end; k += 8) {
      const u32* codes = group.codes + (k - index * format.group) / 8 * kLanes;
      for (int j = 0; j < kVectors; ++j) {
        const int n = j * kWidth;
        const F zero_point =
            group.zeros ? uint8(group.zeros + n) : set1(static_cast<float>(1 << (kBits - 1)));
        widen_eight<kBits>(codes + n, f16(group.scales + n), zero_point,
                           [&](int i, F a, F b) { put(k - k0 + i, j, a, b); });
      }
    }
  }
}

constexpr i64 eights(i64 depth) { return (depth + 7) / 8 * 8; }

// out: [depth rounded up to 8][kNr] float32.
inline void widen_quantised(const std::byte* panel, const QuantFormat& format, i64 k0, i64 depth,
                            float* out) {
  const auto put = [out](i64 k, int j, F a, F b) {
    store(out + k * kNr + j * kWidth, a);
    store(out + (k + 1) * kNr + j * kWidth, b);
  };
  if (format.bits == 8) return widen_columns<8>(panel, format, k0, eights(depth), put);
  widen_columns<4>(panel, format, k0, eights(depth), put);
}

#ifdef INFINILM_NATIVE_BF16

// out: a panel of bfloat16, [depth rounded up to 8 / 2][kNr][2].
inline void round_quantised(const std::byte* panel, const QuantFormat& format, i64 k0, i64 depth,
                            u32* out) {
  const auto put = [out](i64 k, int j, F a, F b) {
    _mm512_storeu_si512(out + k / 2 * kNr + j * kWidth, pair_bf16(a, b));
  };
  if (format.bits == 8) return widen_columns<8>(panel, format, k0, eights(depth), put);
  widen_columns<4>(panel, format, k0, eights(depth), put);
}

// One run of one row, see RunScale; columns from `valid` on count as zero.
inline void pack_run(const float* x, i64 valid, i64 run, int planes, i8* out) {
  float largest = 0.0f;
  bool finite = true;
  for (i64 k = 0; k < valid; ++k) {
    const float magnitude = __builtin_fabsf(x[k]);
    largest = magnitude > largest ? magnitude : largest;
    finite = finite && magnitude <= 3.40282347e38f;
  }
  // The largest integers whose digits, from -128 to 127 each, fit into so many bytes.
  const float top = planes == 3 ? 8355711.0f : planes == 2 ? 32639.0f : 127.0f;
  const float scale = finite ? largest / top : __builtin_nanf("");
  const float inverse = finite && scale > 0.0f ? 1.0f / scale : 0.0f;
  RunScale sums = {scale, 0, 0};
  for (i64 k = 0; k < run; ++k) {
    const float v = k < valid && finite ? x[k] * inverse : 0.0f;
    i32 rest = static_cast<i32>(v + (v < 0.0f ? -0.5f : 0.5f));
    const i32 limit = static_cast<i32>(top);
    rest = rest > limit ? limit : rest < -limit ? -limit : rest;
    for (int p = planes - 1; p > 0; --p) {
      const i8 digit = static_cast<i8>(rest);
      out[p * run + k] = digit;
      rest = (rest - digit) / 256;
      sums.low += p == planes - 1 ? digit : digit * 256;
    }
    out[k] = static_cast<i8>(rest);
    if (planes == 3) sums.high += rest;
    if (planes == 2) sums.low += rest * 256;
    if (planes == 1) sums.low += rest;
  }
  __builtin_memcpy(out + planes * run, &sums, sizeof sums);
}

inline void pack_integers(const PackRows& p) {
  const i64 run = integer_run(p.quant), bytes = integer_run_bytes(p.quant, p.planes);
  const i64 runs = group_count(p.quant, p.depth) * p.quant.group / run;
  const i64 begin = strip_row(p.rows, p.strip_begin), end = strip_row(p.rows, p.strip_end);
  for (i64 row = begin; row < end; ++row) {
    for (i64 i = 0; i < runs; ++i) {
      const i64 valid = smaller(larger(p.depth - i * run, 0), run);
      pack_run(p.x + row * p.stride + i * run, valid, run, p.planes,
               static_cast<i8*>(p.out) + (i * p.rows + row) * bytes);
    }
  }
}

inline __m512i dot_bytes(__m512i sum, __m512i codes, const i8* four) {
  i32 quad;
  __builtin_memcpy(&quad, four, sizeof quad);
  return _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(quad));
}

// The sums of codes times planes over one run, of all outputs of a panel.
template <int kBits, int kPlanes>
struct RunSums {
  __m512i v[kPlanes][kVectors];

  void add(const u32* codes, const i8* x, i64 run) {
    for (auto& plane : v)
      for (auto& sum : plane) sum = _mm512_setzero_si512();
    const __m512i nibble = _mm512_set1_epi32(0x0f0f0f0f);
    for (i64 k = 0; k < run; k += 8, codes += kNr * kBits / 4) {
      __builtin_prefetch(codes + 1024, 0, 3);
      __builtin_prefetch(codes + 1024 + 16, 0, 3);
      __builtin_prefetch(codes + 1024 + 32, 0, 3);
      __builtin_prefetch(codes + 1024 + 48, 0, 3);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        const __m512i lanes = load_pairs(codes + j * kWidth);
        __m512i first = lanes, second;
        if constexpr (kBits == 8) {
          second = load_pairs(codes + kNr + j * kWidth);
        } else {
          first = _mm512_and_si512(lanes, nibble);
          second = _mm512_and_si512(_mm512_srli_epi32(lanes, 4), nibble);
        }
#pragma GCC unroll 3
        for (int p = 0; p < kPlanes; ++p) {
          v[p][j] = dot_bytes(v[p][j], first, x + p * run + k);
          v[p][j] = dot_bytes(v[p][j], second, x + p * run + k + 4);
        }
      }
    }
  }

  // Planes put together, the zero taken off, in units of x's scale.
  F value(int j, __m512i zero_point, const RunScale& x) const {
    __m512i low = v[kPlanes - 1][j];
    if constexpr (kPlanes > 1) {
      low = _mm512_add_epi32(low, _mm512_slli_epi32(v[kPlanes - 2][j], 8));
    }
    low = _mm512_sub_epi32(low, _mm512_mullo_epi32(zero_point, _mm512_set1_epi32(x.low)));
    F sum = _mm512_cvtepi32_ps(low);
    if constexpr (kPlanes == 3) {
      const __m512i high =
          _mm512_sub_epi32(v[0][j], _mm512_mullo_epi32(zero_point, _mm512_set1_epi32(x.high)));
      sum = fma(_mm512_cvtepi32_ps(high), set1(65536.0f), sum);
    }
    return sum;
  }
};

// c [rows][kNr] (+)= one run of the rows times one of a group.
template <int kBits, int kPlanes>
inline void integer_run_of(const Group& group, const u32* codes, const std::byte* x, i64 rows,
                           i64 run, float* c, bool first) {
  for (i64 row = 0; row < rows; ++row, x += kPlanes * run + 16, c += kNr) {
    RunSums<kBits, kPlanes> sums;
    sums.add(codes, reinterpret_cast<const i8*>(x), run);
    RunScale scale;
    __builtin_memcpy(&scale, x + kPlanes * run, sizeof scale);
    for (int j = 0; j < kVectors; ++j) {
      const int n = j * kWidth;
      __m512i zero_point = _mm512_set1_epi32(1 << (kBits - 1));
      if (group.zeros) {
        zero_point = _mm512_cvtepu8_epi32(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(group.zeros + n)));
      }
      const F w = mul(f16(group.scales + n), set1(scale.scale));
      const F before = first ? zero() : load(c + n);
      store(c + n, fma(sums.value(j, zero_point, scale), w, before));
    }
  }
}

template <int kBits, int kPlanes>
inline void integer_panel(const GemmTask& t, const std::byte* panel, float* c) {
  const i64 run = integer_run(t.quant), bytes = integer_run_bytes(t.quant, kPlanes);
  const std::byte* x = static_cast<const std::byte*>(t.a);
  bool first = true;
  for (i64 g = 0; g < group_count(t.quant, t.depth); ++g) {
    const Group group = group_at(panel, t.quant, g);
    for (i64 k = 0; k < t.quant.group; k += run, x += bytes * t.rows, first = false) {
      integer_run_of<kBits, kPlanes>(group, group.codes + k * kNr * kBits / 32, x, t.rows, run, c,
                                     first);
    }
  }
}

// All rows are one strip.
inline void gemm_integers(const GemmTask& t) {
  for (int p = 0; p < t.panel_count; ++p) {
    float* c = t.out + p * t.rows * kNr;
    const bool four = t.quant.bits == 4;
    switch (t.planes) {
      case 1:
        four ? integer_panel<4, 1>(t, t.panels[p], c) : integer_panel<8, 1>(t, t.panels[p], c);
        break;
      case 2:
        four ? integer_panel<4, 2>(t, t.panels[p], c) : integer_panel<8, 2>(t, t.panels[p], c);
        break;
      default:
        four ? integer_panel<4, 3>(t, t.panels[p], c) : integer_panel<8, 3>(t, t.panels[p], c);
    }
  }
}

#endif

}  // namespace infinilm::cpu::INFINILM_ISA
