#include "base/convert.hpp"

#include <cstdint>
#include <cstring>

#include "base/half.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
Tensor to_f32(const Tensor& tensor) {
  const Tensor source = tensor.to(Device()).contiguous();
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
