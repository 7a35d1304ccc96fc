// Weights of every format on both devices, and the products by them.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/half.hpp"
#include "cuda/tests/two_devices.hpp"
#include "quant/quantized_rows.hpp"

namespace cuda_tests {

using Order = std::vector<std::int32_t>;

// Inputs in another order.
Order shuffled(std::int64_t inputs, unsigned seed = 1);

// Random codes with zeros of their own.
class RandomRows final : public QuantizedRows {
 public:
  RandomRows(std::int64_t outputs, std::int64_t inputs, QuantFormat format, unsigned seed,
             Order order = {})
      : outputs_(outputs),
        inputs_(inputs),
        format_(format),
        seed_(seed),
        order_(std::move(order)) {}
  std::int64_t outputs() const override { return outputs_; }
  std::int64_t inputs() const override { return inputs_; }
  const QuantFormat& format() const override { return format_; }
  std::span<const std::int32_t> input_order() const override { return order_; }
  void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t> zeros) const noexcept override {
    std::mt19937 engine(seed_ + static_cast<unsigned>(row));
    const unsigned mask = (1u << format_.bits) - 1;
    for (auto& c : codes) c = static_cast<std::uint8_t>(engine() & mask);
    for (auto& s : scales)
      s = from_f16(to_f16(0.001f + static_cast<float>(engine() % 100) * 1e-4f));
    for (auto& z : zeros) z = static_cast<std::uint8_t>(engine() & mask);
  }

 private:
  std::int64_t outputs_, inputs_;
  QuantFormat format_;
  unsigned seed_;
  Order order_;
};

// A matrix [.., inputs] of the values, rounded to that type.
Tensor stored(const Floats& values, DataType dtype, std::int64_t inputs);

// What a matrix stands for, row after row.
Floats meaning(const QuantizedRows& rows);

// A weight of some parts on the device, and what its parts stand for in float32 on the CPU.
struct Pair {
  std::unique_ptr<Weight> device, host;
};

// Of so many outputs each.
Pair pack(DataType dtype, DataType compute, std::vector<std::int64_t> outputs, std::int64_t inputs);
Pair pack(QuantFormat format, DataType compute, std::vector<std::int64_t> outputs,
          std::int64_t inputs, const Order& order = {});

// Quantised, with its inputs in another order.
struct Ordered {
  QuantFormat format;
};
Pair pack(Ordered f, DataType compute, std::vector<std::int64_t> outputs, std::int64_t inputs);
inline constexpr QuantFormat kOrderedFormats[] = {{8, 32, true}, {4, 32, false}, {4, 128, true}};

std::string text_of(DataType stored_as, DataType compute, std::int64_t rows, std::int64_t outputs,
                    std::int64_t inputs);

// Of the largest. Of many rows quantised weights are rounded to 16 bits; everything else is exact but for the sums.
float product_tolerance(bool is_quantised, DataType compute, std::int64_t rows);

// linear with biases, with a residual, and act(gate) * up, by this weight [n, inputs] x 2 and [n, inputs].
template <class Format>
void check_products(Format format, DataType compute, std::int64_t rows, std::int64_t n,
                    std::int64_t inputs, const std::string& what) {
  const Floats x = rounded(numbers(rows * inputs, 1), compute);
  const Pair two = pack(format, compute, {n, n}, inputs), one = pack(format, compute, {n}, inputs);
  const Floats b = numbers(n, 7);
  const auto product = [&](Ops& ops, const Pair& weights) -> const Weight& {
    return &ops == &device() ? *weights.device : *weights.host;
  };
  const float tolerance = product_tolerance(!std::is_same_v<Format, DataType>, compute, rows);
  for (const char* residual : {"none", "y", "another"}) {
    CHECK(agree(numbers(rows * n, 3), n, 3, tolerance, concat(what, ", residual: ", residual),
                [&](Ops& ops, Matrix y) {
                  const Numbers in(ops, x, inputs, 4), bias(ops, b, n),
                      r(ops, numbers(rows * n, 5), n, 1);
                  const std::vector<const float*> biases = {bias.data()};
                  std::optional<Matrix> added;
                  if (residual[0] == 'y') added = y;
                  if (residual[0] == 'a') added = r.matrix();
                  ops.linear(in.matrix(), product(ops, one), biases, {&y, 1}, added);
                  ops.synchronize();
                }));
  }
  CHECK(agree(nothing(rows * n), n, 0, tolerance, what + ", part 1 of 2", [&](Ops& ops, Matrix y) {
    const Numbers in(ops, x, inputs), other(ops, nothing(rows * n), n);
    const std::vector<Matrix> outputs = {other.matrix(), y};
    ops.linear(in.matrix(), product(ops, two), {}, outputs);
    ops.synchronize();
  }));
  CHECK(agree(nothing(rows * n), n, 0, 3 * tolerance, what + ", act_mul", [&](Ops& ops, Matrix y) {
    const Numbers in(ops, x, inputs), bias(ops, b, n);
    const std::vector<const float*> biases = {nullptr, bias.data()};
    ops.linear_act_mul(in.matrix(), product(ops, two), biases, HiddenAct::Silu, y);
    ops.synchronize();
  }));
}

}  // namespace cuda_tests
