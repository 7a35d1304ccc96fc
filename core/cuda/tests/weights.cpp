#include "cuda/tests/weights.hpp"

#include <cstring>
#include <numeric>

#include "cuda/product.hpp"
#include "infinilm/error.hpp"

namespace cuda_tests {
Tensor stored(const Floats& values, DataType dtype, std::int64_t inputs) {
  Tensor w = Tensor::empty({static_cast<std::int64_t>(values.size()) / inputs, inputs}, dtype);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float x = rounded(values[i], dtype);
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const auto upper = static_cast<std::uint16_t>(bits >> 16);
    const std::uint16_t half = to_f16(x);
    if (dtype == DataType::F32) std::memcpy(w.data() + 4 * i, &x, 4);
    if (dtype == DataType::BF16) std::memcpy(w.data() + 2 * i, &upper, 2);
    if (dtype == DataType::F16) std::memcpy(w.data() + 2 * i, &half, 2);
  }
  return w;
}

Order shuffled(std::int64_t inputs, unsigned seed) {
  Order order(static_cast<std::size_t>(inputs));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

Floats meaning(const QuantizedRows& rows) {
  const auto inputs = static_cast<std::size_t>(rows.inputs());
  const auto groups = static_cast<std::size_t>(group_count(rows.format(), rows.inputs()));
  std::vector<std::uint8_t> codes(inputs), zeros(rows.format().zeros ? groups : 0);
  Floats scales(groups), values(static_cast<std::size_t>(rows.outputs()) * inputs);
  const auto order = rows.input_order();
  for (std::int64_t r = 0; r < rows.outputs(); ++r) {
    rows.read(r, codes, scales, zeros);
    float* row = values.data() + static_cast<std::size_t>(r) * inputs;
    for (std::size_t c = 0; c < inputs; ++c) {
      const std::size_t g = c / static_cast<std::size_t>(rows.format().group);
      const int zero = rows.format().zeros ? zeros[g] : rows.format().middle();
      const std::size_t input = order.empty() ? c : static_cast<std::size_t>(order[c]);
      row[input] = static_cast<float>(codes[c] - zero) * scales[g];
    }
  }
  return values;
}

Pair pack(DataType dtype, DataType compute, std::vector<std::int64_t> outputs,
          std::int64_t inputs) {
  std::vector<Tensor> parts, wide;
  unsigned seed = 10;
  for (const std::int64_t n : outputs) {
    const Floats values = rounded(numbers(n * inputs, seed++), dtype);
    parts.push_back(stored(values, dtype, inputs));
    wide.push_back(stored(rounded(values, compute), DataType::F32, inputs));
  }
  return {device().pack(parts, compute, nullptr), host().pack(wide, DataType::F32, nullptr)};
}

Pair pack(QuantFormat format, DataType compute, std::vector<std::int64_t> outputs,
          std::int64_t inputs, const Order& order) {
  std::vector<std::unique_ptr<RandomRows>> rows;
  std::vector<const QuantizedRows*> parts;
  std::vector<Tensor> wide;
  for (const std::int64_t n : outputs) {
    rows.push_back(
        std::make_unique<RandomRows>(n, inputs, format, static_cast<unsigned>(n), order));
    parts.push_back(rows.back().get());
    wide.push_back(stored(meaning(*rows.back()), DataType::F32, inputs));
  }
  return {device().pack_quantized(parts, compute, false, nullptr),
          host().pack(wide, DataType::F32, nullptr)};
}

Pair pack(Ordered f, DataType compute, std::vector<std::int64_t> outputs, std::int64_t inputs) {
  return pack(f.format, compute, std::move(outputs), inputs, shuffled(inputs));
}

std::string text_of(DataType stored_as, DataType compute, std::int64_t rows, std::int64_t outputs,
                    std::int64_t inputs) {
  return concat(name_of(stored_as), " in ", name_of(compute), ", ", rows, " rows, [", outputs, ", ",
                inputs, "]");
}

float product_tolerance(bool is_quantised, DataType compute, std::int64_t rows) {
  if (!is_quantised || compute == DataType::F32) return 1e-5f;
  if (rows <= cuda::kFewRows) return 2e-4f;          // x by units of columns
  return compute == DataType::BF16 ? 4e-3f : 5e-4f;  // weights
}

}  // namespace cuda_tests
