// Sixteen floats: AVX-512 F, BW, DQ, VL; with INFINILM_NATIVE_BF16 also products of pairs of bfloat16.
#include <immintrin.h>

#include <cstdint>

namespace infinilm::cpu::INFINILM_ISA {

constexpr int kWidth = 16;
constexpr int kVectors = 4;
constexpr int kPanelsAtOnce = 2;
constexpr int kPanelsPerTask = 2;
constexpr int kDepthBlock = 128;  // a panel's block is 32 KiB of L1 in float32

using F = __m512;

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F round(F x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline F pow2(F n) {
  const __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
inline float sum(F x) { return _mm512_reduce_add_ps(x); }
inline float largest(F x) { return _mm512_reduce_max_ps(x); }

inline __m512i load_pairs(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
inline F bf16_even(const std::uint32_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(load_pairs(p), 16));
}
inline F bf16_odd(const std::uint32_t* p) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(load_pairs(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline F f16(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline F bf16(const std::uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline F int8(const std::int8_t* p) {
  const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen));
}

template <int kBits>
inline F field(const std::uint32_t* p, int shift) {
  const __m512i lanes = _mm512_srli_epi32(load_pairs(p), static_cast<unsigned>(shift));
  return _mm512_cvtepi32_ps(_mm512_and_si512(lanes, _mm512_set1_epi32((1 << kBits) - 1)));
}
inline F uint8(const std::uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

#ifdef INFINILM_NATIVE_BF16
constexpr bool kNativeBf16 = true;
// c + (first halves of a * b) + (second halves of a * b); denormals count as zero.
inline F dot_bf16(F c, std::uint32_t pair, const std::uint32_t* p) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair))),
                          reinterpret_cast<__m512bh>(load_pairs(p)));
}
// Thirty-two neighbours as sixteen pairs of bfloat16, nearest even; denormals become zero, as which products take them anyway.
inline __m512i round_pairs(const float* p) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(p + kWidth), load(p)));
}
// Lane by lane (a, b) as a pair of bfloat16, nearest even.
inline __m512i pair_bf16(F a, F b) {
  const __m512i first = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a)));
  const __m512i second = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(b)));
  return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}
#else
constexpr bool kNativeBf16 = false;
#endif

}  // namespace infinilm::cpu::INFINILM_ISA
