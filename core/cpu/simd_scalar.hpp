// One float at a time, in plain C++: runs anywhere, and is the reading copy of the other simd_*.hpp.
#include <cstdint>

namespace infinilm::cpu::INFINILM_ISA {

constexpr int kWidth = 1;         // floats in a vector
constexpr int kVectors = 8;       // vectors in a panel's row
constexpr int kPanelsAtOnce = 1;  // panels that a tile of one row reads side by side
constexpr int kPanelsPerTask = 4;
constexpr int kDepthBlock = 256;  // K is summed in blocks of this size
constexpr bool kNativeBf16 = false;

using F = float;

inline std::uint32_t bits_of_float(float x) { return __builtin_bit_cast(std::uint32_t, x); }
inline float float_of_bits(std::uint32_t u) { return __builtin_bit_cast(float, u); }

inline F zero() { return 0.0f; }
inline F set1(float x) { return x; }
inline F load(const float* p) { return *p; }
inline void store(float* p, F x) { *p = x; }
inline F add(F a, F b) { return a + b; }
inline F sub(F a, F b) { return a - b; }
inline F mul(F a, F b) { return a * b; }
inline F div(F a, F b) { return a / b; }
inline F fma(F a, F b, F c) { return a * b + c; }
// The second operand if either is NaN.
inline F max(F a, F b) { return a > b ? a : b; }
inline F min(F a, F b) { return a < b ? a : b; }
// To the nearest integer, for |x| < 2^22.
inline F round(F x) { return (x + 12582912.0f) - 12582912.0f; }
// 2^n for an integral n in [-126, 127].
inline F pow2(F n) {
  return float_of_bits(static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23);
}
inline float sum(F x) { return x; }
inline float largest(F x) { return x; }

// The first and second halves of pairs of bfloat16.
inline F bf16_even(const std::uint32_t* p) { return float_of_bits(*p << 16); }
inline F bf16_odd(const std::uint32_t* p) { return float_of_bits(*p & 0xffff0000u); }
inline F f16(const std::uint16_t* p) {
  const std::uint32_t h = *p;
  const std::uint32_t sign = (h & 0x8000u) << 16;
  const std::uint32_t rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // 2^112 rescales the exponent; the product is exact, for denormals too.
  return float_of_bits(sign | bits_of_float(float_of_bits(rest << 13) * 0x1p112f));
}

inline F bf16(const std::uint16_t* p) {
  return float_of_bits(static_cast<std::uint32_t>(*p) << 16);
}
inline F int8(const std::int8_t* p) { return static_cast<float>(*p); }

// `bits` bits of each lane from bit `shift` on, as a number; one unsigned byte per lane.
template <int kBits>
inline F field(const std::uint32_t* p, int shift) {
  return static_cast<float>(*p >> shift & ((1u << kBits) - 1));
}
inline F uint8(const std::uint8_t* p) { return static_cast<float>(*p); }

}  // namespace infinilm::cpu::INFINILM_ISA
