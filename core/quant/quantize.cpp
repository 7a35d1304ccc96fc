#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/half.hpp"
#include "infinilm/error.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm {
namespace {

// Reads `count` elements at `source` (any alignment) as float32.
void widen(const std::byte* source, DataType dtype, std::int64_t count, float* out) {
  if (dtype == DataType::F32) {
    std::memcpy(out, source, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, source + 2 * i, sizeof bits);
    out[i] = dtype == DataType::BF16 ? from_bf16(bits) : from_f16(bits);
  }
}

// NaN if any is not finite: the group's values are to be NaN then.
float largest_magnitude(const float* x, std::int64_t n) {
  float largest = 0.0f;
  bool finite = true;
  for (std::int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::fabs(x[i]));
    finite = finite && std::fabs(x[i]) <= std::numeric_limits<float>::max();
  }
  return finite ? largest : std::numeric_limits<float>::quiet_NaN();
}

// A scale is kept as float16; the smallest of them stands for what is smaller, so that nothing is divided by zero.
float as_scale(float scale) {
  const float kept = from_f16(to_f16(scale));
  return kept == 0.0f ? std::copysign(0x1p-24f, scale) : kept;
}

// The codes of a group for one scale. Truncation of a positive number is what vectorises.
void encode(const float* x, std::int64_t n, float scale, int bits, std::uint8_t* codes) {
  const float inverse = 1.0f / scale;
  const float middle = static_cast<float>(1 << (bits - 1)) + 0.5f;
  const float top = static_cast<float>((1 << bits) - 1);
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = x[i] * inverse + middle;
    const float inside = code > 0.0f ? (code < top ? code : top) : 0.0f;  // 0 for NaN
    codes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(inside));
  }
}

float squared_error(const float* x, const std::uint8_t* codes, std::int64_t n, float scale,
                    int bits) {
  const float middle = static_cast<float>(1 << (bits - 1));
  float total = 0.0f;
  for (std::int64_t i = 0; i < n; ++i) {
    const float d = (static_cast<float>(codes[i]) - middle) * scale - x[i];
    total += d * d;
  }
  return total;
}

class RoundedRows final : public QuantizedRows {
 public:
  RoundedRows(Tensor matrix, const QuantFormat& format)
      : matrix_(std::move(matrix)), format_(format) {}

  std::int64_t outputs() const override { return matrix_.shape()[0]; }
  std::int64_t inputs() const override { return matrix_.shape()[1]; }
  const QuantFormat& format() const override { return format_; }

  void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t>) const noexcept override {
    thread_local std::vector<float> x;
    x.resize(static_cast<std::size_t>(inputs()));
    const std::size_t row_bytes = static_cast<std::size_t>(inputs()) * matrix_.itemsize();
    widen(matrix_.data() + static_cast<std::size_t>(row) * row_bytes, matrix_.dtype(), inputs(),
          x.data());
    for (std::size_t g = 0; g < scales.size(); ++g) {
      const std::int64_t begin = static_cast<std::int64_t>(g) * format_.group;
      const std::int64_t count = std::min(format_.group, inputs() - begin);
      scales[g] = round_group(x.data() + begin, count, codes.data() + begin);
    }
  }

 private:
  // Fills the codes and gives the scale.
  float round_group(const float* x, std::int64_t n, std::uint8_t* codes) const {
    const float largest = largest_magnitude(x, n);
    if (format_.bits == 8) {
      const float scale = as_scale(largest / 127.0f);
      encode(x, n, scale, 8, codes);
      return scale;
    }
    const bool negative = std::find(x, x + n, -largest) != x + n;
    // The lowest code, -8, is for the extreme.
    const float extreme = negative ? largest : -largest;
    constexpr float kSteps[] = {8.0f, 7.2f, 8.6f};
    thread_local std::vector<std::uint8_t> trial;
    trial.resize(static_cast<std::size_t>(n));
    float best_scale = 0.0f, least = 0.0f;
    for (const float steps : kSteps) {
      const float scale = as_scale(extreme / steps);
      encode(x, n, scale, 4, trial.data());
      const float error = squared_error(x, trial.data(), n, scale, 4);
      if (best_scale != 0.0f && !(error < least)) continue;
      best_scale = scale;
      least = error;
      std::copy_n(trial.data(), n, codes);
    }
    return best_scale;
  }

  Tensor matrix_;
  QuantFormat format_;
};

}  // namespace

QuantFormat format_of(const Quantization& quantization, std::int64_t inputs) {
  const std::size_t group = quantization.group_size;
  // A group that reaches beyond the row is the row: padding it to that many columns would only cost memory.
  if (group == 0 || group >= static_cast<std::size_t>(inputs))
    return by_rows(quantization.bits, inputs);
  return {quantization.bits, static_cast<std::int64_t>(group), false};
}

std::unique_ptr<QuantizedRows> quantize(const Tensor& matrix, const QuantFormat& format) {
  return std::make_unique<RoundedRows>(matrix, format);
}

}  // namespace infinilm
