// 16-bit floats, one at a time.
#pragma once

#include <bit>
#include <cstdint>

namespace infinilm {

inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline float from_f16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1F;
  const std::uint32_t fraction = bits & 0x3FF;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t biased = exponent == 0x1F ? 0xFF : exponent + 112;
  return std::bit_cast<float>(sign | (biased << 23) | (fraction << 13));
}

// To nearest even; infinity from 65520 on; NaN stays NaN.
inline std::uint16_t to_f16(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(u >> 16 & 0x8000);
  const float magnitude = std::bit_cast<float>(u & 0x7fffffffu);
  if (!(magnitude < 65520.0f)) {
    return static_cast<std::uint16_t>(sign | (magnitude != magnitude ? 0x7e00 : 0x7c00));
  }
  if (magnitude < 0x1p-14f) {  // subnormal: adding 0.5 leaves units of 2^-24
    const float shifted = magnitude + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) & 0x7ff));
  }
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t rounded = bits + 0xfffu + (bits >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

}  // namespace infinilm
