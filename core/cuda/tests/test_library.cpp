// Large products by a library, and by own kernels where it declines.
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
                float beta, const cuda::Results& c) override {
    if (declines_) return false;
    emulation::put(stream, [=] {
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          const std::int64_t place = i * c.stride + j;
          float sum = beta == 0.0f ? 0.0f : beta * at(c.type, c.data, place);
          for (std::int64_t l = 0; l < k; ++l) {
            sum += at(type, a, i * a_stride + l) * at(type, b, j * b_stride + l);
          }
          put(sum, c, place);
        }
      }
    });
    return true;
  }

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
