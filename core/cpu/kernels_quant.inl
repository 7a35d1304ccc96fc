// Quantised weights: widened block by block for many rows, multiplied as integers for few. See kernels.hpp for the layout.
//
// Few rows: the weights' bytes are the limit, and a code costs the least as it is. x becomes integers of 8, 16 or 24 bits
// with a scale for each run of columns, cut into planes of signed bytes; vpdpbusd multiplies each plane with the codes.
// Sums within a run are exact. With three planes x is as exact as in float32 (relative to the run's largest), with two
// more exact than in bfloat16.
#pragma once

#include "cpu/kernels_base.inl"

namespace infinilm::cpu::INFINILM_ISA {

// Up to so many rows two planes of integers are faster than widening the weights to bfloat16. Three are always faster than
// float32.
#if defined(INFINILM_AMX)
constexpr i64 kIntegerRows = 16;
#elif defined(INFINILM_NATIVE_BF16)
constexpr i64 kIntegerRows = 96;
#else
constexpr i64 kIntegerRows = 0;
#endif

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

// Sixteen columns of x from k on, zeros from `valid` on.
inline F load_columns(const float* x, i64 k, i64 valid) {
  const i64 count = smaller(larger(valid - k, 0), kWidth);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), x + k);
}

// The largest magnitude of a run; NaN if one of them is not finite.
inline float largest_of_run(const float* x, i64 valid) {
  __m512i most = _mm512_setzero_si512();  // magnitudes order as integers do, infinity and NaN last
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (i64 k = 0; k < valid; k += kWidth) {
    const __m512i bits = _mm512_castps_si512(load_columns(x, k, valid));
    most = _mm512_max_epu32(most, _mm512_and_si512(bits, magnitude));
  }
  const u32 bits = _mm512_reduce_max_epu32(most);
  return bits < 0x7f800000u ? __builtin_bit_cast(float, bits) : __builtin_nanf("");
}

// The scale of a run, and what its values are multiplied with to become integers of at most `top`. All of a run that is as
// good as zero, or not finite, becomes zeros.
struct RunRange {
  float scale;
  float inverse;
};
inline RunRange range_of_run(float largest, float top) {
  constexpr float kSmallest = 0x1p-120f;
  if (!(largest >= kSmallest)) return {largest == largest ? 0.0f : largest, 0.0f};
  return {largest / top, top / largest};
}

// The lowest byte of each integer, signed, taken off it: what is left is a multiple of 256, divided.
inline __m512i take_digit(__m512i& rest) {
  const __m512i digit = _mm512_srai_epi32(_mm512_slli_epi32(rest, 24), 24);
  rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, digit), 8);
  return digit;
}

inline void store_bytes(i8* out, __m512i x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(x));
}

// One run of one row, see RunScale; columns from `valid` on count as zero.
template <int kPlanes>
inline void pack_run(const float* x, i64 valid, i64 run, i8* out) {
  // The largest integers whose digits, from -128 to 127 each, fit into so many bytes; of three (8355711) a little less, for what
  // the product with the inverse may be too large.
  constexpr float kTop = kPlanes == 3 ? 8355700.0f : kPlanes == 2 ? 32639.0f : 127.0f;
  const RunRange range = range_of_run(largest_of_run(x, valid), kTop);
  __m512i low = _mm512_setzero_si512(), high = low;
  for (i64 k = 0; k < run; k += kWidth) {
    // Zeros, and not NaN, where the range is not finite: what is there is infinite or NaN, and so not to be multiplied.
    const F v =
        range.inverse == 0.0f ? zero() : mul(load_columns(x, k, valid), set1(range.inverse));
    __m512i rest = _mm512_cvtps_epi32(v);
    __m512i all = rest;
#pragma GCC unroll 2
    for (int p = kPlanes - 1; p > 0; --p) store_bytes(out + p * run + k, take_digit(rest));
    store_bytes(out + k, rest);
    if constexpr (kPlanes == 3) {
      high = _mm512_add_epi32(high, rest);
      all = _mm512_sub_epi32(all, _mm512_slli_epi32(rest, 16));
    }
    low = _mm512_add_epi32(low, all);
  }
  const RunScale sums = {range.scale, _mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high)};
  __builtin_memcpy(out + kPlanes * run, &sums, sizeof sums);
}

template <int kPlanes>
inline void pack_integers_as(const PackRows& p) {
  const i64 run = integer_run(p.quant), bytes = integer_run_bytes(p.quant, kPlanes);
  const i64 runs = group_count(p.quant, p.depth) * p.quant.group / run;
  const i64 begin = strip_row(p.rows, p.strip_begin), end = strip_row(p.rows, p.strip_end);
  for (i64 row = begin; row < end; ++row) {
    for (i64 i = 0; i < runs; ++i) {
      const i64 valid = smaller(larger(p.depth - i * run, 0), run);
      pack_run<kPlanes>(p.x + row * p.stride + i * run, valid, run,
                        static_cast<i8*>(p.out) + (i * p.rows + row) * bytes);
    }
  }
}

inline void pack_integers(const PackRows& p) {
  if (p.planes == 1) return pack_integers_as<1>(p);
  if (p.planes == 2) return pack_integers_as<2>(p);
  pack_integers_as<3>(p);
}

inline void prefetch_codes(const u32* codes) {
  constexpr int kAhead = 1024;  // of 32 bits
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) __builtin_prefetch(codes + kAhead + j * kWidth, 0, 3);
}

inline __m512i quad(const i8* four) {
  i32 bits;
  __builtin_memcpy(&bits, four, sizeof bits);
  return _mm512_set1_epi32(bits);
}

// sum += codes (unsigned bytes) times four (signed bytes), lane by lane. Written out: gcc 12 gives the intrinsic's sums a
// second register each, and so moves most of them through memory.
inline void add_products(__m512i& sum, __m512i codes, __m512i four) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(four));
}

// The codes of four columns in a vector of lanes.
template <int kBits>
inline __m512i four_codes(const u32* codes, int half) {
  const __m512i lanes = load_pairs(codes);
  if constexpr (kBits == 8) return lanes;
  return _mm512_and_si512(half ? _mm512_srli_epi32(lanes, 4) : lanes,
                          _mm512_set1_epi32(0x0f0f0f0f));
}

inline __m512i zero_points(const Group& group, int bits, int n) {
  if (!group.zeros) return _mm512_set1_epi32(1 << (bits - 1));
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group.zeros + n)));
}

// -zero * sum in every lane of a vector of outputs: what the sum of codes times x begins with.
inline __m512i zero_terms(const Group& group, int bits, int n, i32 sum) {
  if (!group.zeros) return _mm512_set1_epi32(-sum * (1 << (bits - 1)));
  const __m512i negative = _mm512_set1_epi32(-sum);
  return _mm512_mullo_epi32(zero_points(group, bits, n), negative);
}

// c [kRows][kNr] (+)= one run of some rows times one of a group. Rows of x lie `stride` bytes apart.
template <int kBits, int kPlanes, int kRows>
inline void integer_tile(const Group& group, const u32* codes, const i8* x, i64 stride, i64 run,
                         float* c, bool first) {
  __m512i sums[kRows][kPlanes][kVectors];
  RunScale scales[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    __builtin_memcpy(&scales[r], x + r * stride + kPlanes * run, sizeof scales[r]);
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
#pragma GCC unroll 3
      for (int p = 0; p < kPlanes; ++p) sums[r][p][j] = _mm512_setzero_si512();
      sums[r][kPlanes - 1][j] = zero_terms(group, kBits, j * kWidth, scales[r].low);
      if (kPlanes == 3) sums[r][0][j] = zero_terms(group, kBits, j * kWidth, scales[r].high);
    }
  }
  constexpr int kHalves = kBits == 8 ? 1 : 2;  // fours of columns in a lane
  for (i64 k = 0; k < run; k += 4 * kHalves, codes += kNr) {
    prefetch_codes(codes);
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; ++half) {
      __m512i w[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) w[j] = four_codes<kBits>(codes + j * kWidth, half);
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
        for (int p = 0; p < kPlanes; ++p) {
          const __m512i four = quad(x + r * stride + p * run + k + half * 4);
#pragma GCC unroll 4
          for (int j = 0; j < kVectors; ++j) {
            add_products(sums[r][p][j], w[j], four);
          }
        }
      }
      asm volatile(""
                   :
                   :
                   : "memory");  // no load before its turn: the sums take nearly all registers
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    const F scale = f16(group.scales + j * kWidth);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      __m512i low = sums[r][kPlanes - 1][j];
      if constexpr (kPlanes > 1) {
        low = _mm512_add_epi32(low, _mm512_slli_epi32(sums[r][kPlanes - 2][j], 8));
      }
      F sum = _mm512_cvtepi32_ps(low);
      if constexpr (kPlanes == 3) {
        sum = fma(_mm512_cvtepi32_ps(sums[r][0][j]), set1(65536.0f), sum);
      }
      float* to = c + r * kNr + j * kWidth;
      store(to, fma(sum, mul(scale, set1(scales[r].scale)), first ? zero() : load(to)));
    }
  }
}

// The same for any number of rows, kRows at a time.
template <int kBits, int kPlanes, int kRows>
inline void integer_tiles(const Group& group, const u32* codes, const i8* x, i64 stride, i64 rows,
                          i64 run, float* c, bool first) {
  for (; rows >= kRows; rows -= kRows, x += kRows * stride, c += kRows * kNr) {
    integer_tile<kBits, kPlanes, kRows>(group, codes, x, stride, run, c, first);
  }
  if constexpr (kRows > 1) {
    if (rows > 0) {
      integer_tiles<kBits, kPlanes, kRows - 1>(group, codes, x, stride, rows, run, c, first);
    }
  }
}

template <int kBits, int kPlanes>
inline void integer_panel(const GemmTask& t, const std::byte* panel, i64 row, i64 rows, float* c) {
  constexpr int kTileRows = kPlanes == 1 ? 6 : kPlanes == 2 ? 3 : 2;  // 24 sums in registers
  const i64 run = integer_run(t.quant), bytes = integer_run_bytes(t.quant, kPlanes);
  const i8* x = static_cast<const i8*>(t.a) + row * bytes;
  bool first = true;
  for (i64 g = 0; g < group_count(t.quant, t.depth); ++g) {
    const Group group = group_at(panel, t.quant, g);
    for (i64 k = 0; k < t.quant.group; k += run, x += bytes * t.rows, first = false) {
      integer_tiles<kBits, kPlanes, kTileRows>(group, group.codes + k * kNr * kBits / 32, x, bytes,
                                               rows, run, c, first);
    }
  }
}

template <int kBits>
inline void integer_panel_of(const GemmTask& t, const std::byte* panel, i64 row, i64 rows,
                             float* c) {
  if (t.planes == 1) return integer_panel<kBits, 1>(t, panel, row, rows, c);
  if (t.planes == 2) return integer_panel<kBits, 2>(t, panel, row, rows, c);
  integer_panel<kBits, 3>(t, panel, row, rows, c);
}

inline void gemm_integers(const GemmTask& t) {
  const i64 row = strip_row(t.rows, t.strip_begin);
  const i64 rows = strip_row(t.rows, t.strip_end) - row;
  for (int p = 0; p < t.panel_count; ++p) {
    float* c = t.out + p * rows * kNr;
    if (t.quant.bits == 4) {
      integer_panel_of<4>(t, t.panels[p], row, rows, c);
    } else {
      integer_panel_of<8>(t, t.panels[p], row, rows, c);
    }
  }
}

#endif

}  // namespace infinilm::cpu::INFINILM_ISA
