// Large products by a library, and by own kernels where it declines.
#include <array>
#include <bit>

#include "cuda/matrix_product.hpp"
#include "cuda/ops_cuda.hpp"
#include "cuda/tests/attention_cases.hpp"
#include "cuda/tests/weights.hpp"

using namespace cuda_tests;

namespace {

// A library for large products, on the emulation's memory.
class PlainProduct final : public cuda::MatrixProduct {
 public:
  // `declines`: whatever it is asked for.
  explicit PlainProduct(bool declines = false) : declines_(declines) {}
  bool multiply(void* stream, DataType type, std::int64_t m, std::int64_t n, std::int64_t k,
                const void* a, std::int64_t a_stride, const void* b, std::int64_t b_stride,
                float beta, const cuda::Results& c, const cuda::Repeated& repeated) override {
    if (declines_) return false;
    CHECK(repeated.b_step >= 0 && repeated.c_step >= 0);
    calls += 1;
    emulation::put(stream, [=] {
      for (std::int64_t i = 0; i < repeated.times * m * n; ++i) {
        const std::int64_t time = i / (m * n), row = i / n % m, column = i % n;
        const std::int64_t place = row * c.stride + column + time * repeated.c_step;
        const std::int64_t begin = column * b_stride + time * repeated.b_step;
        float sum = beta == 0.0f ? 0.0f : beta * at(c.type, c.data, place);
        for (std::int64_t l = 0; l < k; ++l) {
          sum += at(type, a, row * a_stride + l) * at(type, b, begin + l);
        }
        put(sum, c, place);
      }
    });
    return true;
  }
  int calls = 0;

 private:
  static float at(DataType type, const void* data, std::int64_t i) {
    if (type == DataType::F32) return static_cast<const float*>(data)[i];
    const std::uint16_t half = static_cast<const std::uint16_t*>(data)[i];
    return type == DataType::F16 ? from_f16(half) : from_bf16(half);
  }
  static void put(float x, const cuda::Results& c, std::int64_t i) {
    if (c.type == DataType::F32) {
      static_cast<float*>(c.data)[i] = x;
    } else {
      const auto bits = std::bit_cast<std::uint32_t>(rounded(x, DataType::BF16));
      static_cast<std::uint16_t*>(c.data)[i] =
          c.type == DataType::F16 ? to_f16(x) : static_cast<std::uint16_t>(bits >> 16);
    }
  }
  bool declines_;
};

// So many rows that they are the library's, or own kernels' beside one: as those would multiply them that have none. Also where the
// library will not.
void check_library(bool declines, std::int64_t rows) {
  constexpr std::int64_t kInputs = 301, kOutputs = 37;
  cuda::OpsCuda ops(0);
  ops.use(std::make_unique<PlainProduct>(declines));
  for (const QuantFormat& f : kOrderedFormats) {
    for (const DataType compute : {kF32, kBf16, kF16}) {
      const Order order = shuffled(kInputs);
      const RandomRows gate(kOutputs, kInputs, f, 1, order), up(kOutputs, kInputs, f, 2, order);
      const std::vector<const QuantizedRows*> parts = {&gate, &up};
      const auto run = [&](Ops& by) {
        const auto weight = by.pack_quantized(parts, compute, false, nullptr);
        const Numbers x(by, rounded(numbers(rows * kInputs, 1), compute), kInputs, 4),
            y(by, nothing(rows * kOutputs), kOutputs);
        by.linear_act_mul(x.matrix(), *weight, {}, HiddenAct::Silu, y.matrix());
        return y.read();
      };
      // Rounded to 16 bits, or in float16 without a library scaled exactly.
      const float tolerance = compute == kF32 ? 3e-5f : compute == kF16 ? 3e-3f : 2e-2f;
      CHECK(is_close(run(ops), run(device()), tolerance,
                     concat("by a library, ", f.bits, " bits in ", name_of(compute))));
    }
  }
}

}  // namespace

// Parts of one size, keys and values for instance, go to the library together where their results lie in that order.
TEST(parts_by_a_library) {
  constexpr std::int64_t kInputs = 45, kRows = 140;
  const std::vector<std::int64_t> outputs = {40, 24, 24};
  cuda::OpsCuda ops(0);
  auto library = std::make_unique<PlainProduct>();
  const PlainProduct& asked = *library;
  ops.use(std::move(library));
  for (const DataType compute : {kBf16, kF16, kF32}) {
    std::vector<Tensor> parts;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const Floats w = rounded(numbers(outputs[i] * kInputs, i), compute);
      parts.push_back(stored(w, compute, kInputs));
    }
    for (const bool in_order : {true, false}) {
      const auto run = [&](Ops& by) {
        const auto weight = by.pack(parts, compute, nullptr);
        const Numbers x(by, rounded(numbers(kRows * kInputs, 7), compute), kInputs);
        const Numbers q(by, nothing(kRows * 40), 40), both(by, nothing(2 * kRows * 24), 24);
        const Matrix a = both.matrix().slice(0, kRows), b = both.matrix().slice(kRows, kRows);
        const std::array<Matrix, 3> y = {q.matrix(), in_order ? a : b, in_order ? b : a};
        by.linear(x.matrix(), *weight, {}, y);
        return std::array<Floats, 2>{q.read(), both.read()};
      };
      const int before = asked.calls;
      const auto found = run(ops), expected = run(device());
      CHECK(asked.calls - before == (in_order ? 2 : 3));
      for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(is_close(found[i], expected[i], 1e-5f, concat("part ", i, " in ", name_of(compute))));
      }
    }
  }
}

// Attention that rounds its results for the product after it, splits of keys included.
TEST(attention_before_a_library) {
  cuda::OpsCuda ops(0);
  ops.use(std::make_unique<PlainProduct>());
  for (const DataType dtype : {kBf16, kF16, kF32}) {
    for (const AttentionCase& c : {AttentionCase{4, 2, 64, 0, dtype, {40}, {20}},
                                   AttentionCase{2, 1, 24, 0, dtype, {300, 30}, {300, 0}},
                                   AttentionCase{3, 1, 22, 9, dtype, {40}, {40}}}) {
      const Floats rounds = attend(ops, c, dtype, Way::Multiplied);
      CHECK(rounds == attend(ops, c, dtype, Way::Seen));
    }
  }
}

TEST(ordered_by_a_library) { check_library(false, 140); }

TEST(a_library_that_declines) { check_library(true, 140); }

TEST(ordered_beside_a_library) { check_library(false, 40); }
