#include "base/convert.hpp"

#include <bit>
#include <cstdint>
#include <cstring>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

float from_f16(std::uint16_t bits) {
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

}  // namespace

Tensor to_f32(const Tensor& tensor) {
  const Tensor source = tensor.contiguous();
  if (source.dtype() == DataType::F32) return source.clone();
  check(source.dtype() == DataType::BF16 || source.dtype() == DataType::F16,
        "expected float32, float16 or bfloat16, found ", name_of(source.dtype()));
  Tensor result = Tensor::empty(source.shape());
  auto* out = reinterpret_cast<float*>(result.data());
  const bool bf16 = source.dtype() == DataType::BF16;
  for (std::int64_t i = 0; i < source.numel(); ++i) {
    std::uint16_t bits;  // memcpy: a file's tensors need not be aligned
    std::memcpy(&bits, source.data() + 2 * i, sizeof bits);
    out[i] = bf16 ? from_bf16(bits) : from_f16(bits);
  }
  return result;
}

}  // namespace infinilm
