// What the instruction set can do at best: reading memory, and one loop for each number format that does nothing but
// multiply and add. limits.cpp times them.
#pragma once

#include "cpu/kernels_base.inl"

namespace infinilm::cpu::INFINILM_ISA {

// Reads `bytes` bytes, a multiple of 4 KiB, as four streams side by side, which is what reads fastest.
inline void read_bytes(const std::byte* begin, i64 bytes) noexcept {
  constexpr i64 kStreams = 4, kUnroll = 4, kStep = kUnroll * kWidth;
  const i64 part = bytes / (kStreams * 4);
  const auto* floats = reinterpret_cast<const float*>(begin);
  F seen[kStreams * kUnroll];
  for (F& s : seen) s = zero();
  for (i64 at = 0; at + kStep <= part; at += kStep) {
#pragma GCC unroll 4
    for (i64 stream = 0; stream < kStreams; ++stream) {
#pragma GCC unroll 4
      for (i64 i = 0; i < kUnroll; ++i)
        seen[stream * kUnroll + i] =
            max(seen[stream * kUnroll + i], load(floats + stream * part + at + i * kWidth));
    }
  }
  for (F& s : seen) asm volatile("" : : "m"(s));
}

// As many accumulators as the kernels' tile has: more than an instruction's latency takes to hide.
constexpr int kChains = kVectors * kMaxStrip;

// `step(acc)` multiplies and adds. The compiler must not know that all chains are alike.
template <class Vector, class Step>
inline void chains(i64 rounds, Step step) noexcept {
  Vector acc[kChains] = {};
  for (Vector& a : acc) asm volatile("" : "+m"(a));
  for (i64 round = 0; round < rounds; ++round) {
#pragma GCC unroll 48
    for (int i = 0; i < kChains; ++i) acc[i] = step(acc[i]);
  }
  for (Vector& a : acc) asm volatile("" : : "m"(a));
}

inline void chains_f32(i64 rounds) noexcept {
  F x = set1(0.999f), y = set1(0.001f);
  asm volatile("" : "+m"(x), "+m"(y));  // no constants to fold
  chains<F>(rounds, [=](F a) { return fma(a, x, y); });
}

// Instructions of extensions that the file's flags do not name are written out.

#if defined(INFINILM_NATIVE_BF16)

inline void chains_bf16(i64 rounds) noexcept {
  __m512 x = _mm512_setzero_ps();
  asm volatile("" : "+v"(x));
  const auto pairs = reinterpret_cast<__m512bh>(x);
  chains<__m512>(rounds, [=](__m512 a) { return _mm512_dpbf16_ps(a, pairs, pairs); });
}

inline void chains_int8(i64 rounds) noexcept {
  __m512i x = _mm512_set1_epi8(1);
  asm volatile("" : "+v"(x));
  chains<__m512i>(rounds, [=](__m512i a) {
    asm("vpdpbusd %1, %1, %0" : "+v"(a) : "v"(x));
    return a;
  });
}

constexpr PeakLoop kBf16 = {"vdpbf16ps", chains_bf16, kChains * 64};
constexpr PeakLoop kInt8 = {"vpdpbusd", chains_int8, kChains * 128};

#elif defined(__AVX512BW__)

inline void chains_int8(i64 rounds) noexcept {
  __m512i x = _mm512_set1_epi8(1), ones = _mm512_set1_epi16(1);
  asm volatile("" : "+v"(x), "+v"(ones));
  chains<__m512i>(rounds, [=](__m512i a) {
    __m512i pairs;
    asm volatile("vpmaddubsw %1, %1, %0" : "=v"(pairs) : "v"(x));
    return _mm512_add_epi32(a, _mm512_madd_epi16(pairs, ones));
  });
}

constexpr PeakLoop kBf16 = {};
constexpr PeakLoop kInt8 = {"vpmaddubsw", chains_int8, kChains * 128};

#elif defined(__AVX2__)

inline void chains_int8(i64 rounds) noexcept {
  __m256i x = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  asm volatile("" : "+x"(x), "+x"(ones));
  chains<__m256i>(rounds, [=](__m256i a) {
    __m256i pairs;
    asm volatile("vpmaddubsw %1, %1, %0" : "=x"(pairs) : "x"(x));
    return _mm256_add_epi32(a, _mm256_madd_epi16(pairs, ones));
  });
}

constexpr PeakLoop kBf16 = {};
constexpr PeakLoop kInt8 = {"vpmaddubsw", chains_int8, kChains * 64};

#else

constexpr PeakLoop kBf16 = {};
constexpr PeakLoop kInt8 = {};

#endif

#if defined(INFINILM_AMX)

struct alignas(64) FullTiles {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Four accumulators, as in the kernels. The shapes that the thread had are put back.
#define INFINILM_TILE_LOOP(name, instruction)                                                \
  inline void name(i64 rounds) noexcept {                                                    \
    FullTiles before, full;                                                                  \
    asm volatile("sttilecfg %0" : "=m"(before));                                             \
    asm volatile("ldtilecfg %0" : : "m"(full));                                              \
    for (i64 round = 0; round < rounds; ++round) {                                           \
      asm volatile(instruction " %tmm6, %tmm4, %tmm0\n" instruction                          \
                               " %tmm7, %tmm4, %tmm1\n" instruction                          \
                               " %tmm6, %tmm5, %tmm2\n" instruction " %tmm7, %tmm5, %tmm3"); \
    }                                                                                        \
    asm volatile("ldtilecfg %0" : : "m"(before));                                            \
  }
INFINILM_TILE_LOOP(tiles_bf16, "tdpbf16ps")
INFINILM_TILE_LOOP(tiles_int8, "tdpbusd")
#undef INFINILM_TILE_LOOP

constexpr PeakLoop kTilesBf16 = {"tdpbf16ps", tiles_bf16, i64{4} * 16 * 16 * 64};
constexpr PeakLoop kTilesInt8 = {"tdpbusd", tiles_int8, i64{4} * 16 * 16 * 128};

#else

constexpr PeakLoop kTilesBf16 = {};
constexpr PeakLoop kTilesInt8 = {};

#endif

inline Limits limits() noexcept {
  constexpr PeakLoop f32 = {"f32 FMA", chains_f32, i64{2} * kChains * kWidth};
  return {read_bytes, f32, kBf16, kTilesBf16, kInt8, kTilesInt8};
}

}  // namespace infinilm::cpu::INFINILM_ISA
