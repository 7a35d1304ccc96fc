// The best instruction set of this processor against plain C++ one float at a time. What either computes is compared with
// NumPy through Python; this is for processors that only an emulator runs.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/ops_cpu.hpp"
#include "quant/quantized_rows.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

using namespace infinilm;
using infinilm::cpu::OpsCpu;

namespace {

using infinilm_test::Floats;
using infinilm_test::numbers;

// Room for what vectors load, and never use, behind the end.
Floats zeros(std::int64_t count) { return Floats(static_cast<std::size_t>(count)); }

Matrix matrix(Floats& values, std::int64_t cols) {
  return {values.data(), static_cast<std::int64_t>(values.size()) / cols, cols, cols};
}

// To `tolerance` of the largest; NaN is never close.
bool is_close(const Floats& found, const Floats& expected, float tolerance = 1e-5f) {
  float largest = 0.0f;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!(std::abs(found[i] - expected[i]) <= tolerance * largest)) return false;
  }
  return largest > 0.0f && found.size() == expected.size();
}

// What `run(ops, y)` writes, by the scalar kernels and by the best ones.
template <class Run>
bool agree(std::int64_t count, Run run) {
  OpsCpu plain(cpu::kernels_scalar()), best(cpu::kernels());
  Floats expected = zeros(count), found = zeros(count);
  run(plain, expected);
  run(best, found);
  return is_close(found, expected);
}

// A weight of random finite numbers, [outputs, inputs].
Tensor weight(DataType dtype, std::int64_t outputs, std::int64_t inputs, unsigned seed) {
  Tensor w = Tensor::empty({outputs, inputs}, dtype);
  const Floats values = numbers(outputs * inputs, seed);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof bits);
    const auto bf16 = static_cast<std::uint16_t>(bits >> 16);
    // A float16 of the same size: 5 bits of exponent around that of 1.
    const auto f16 =
        static_cast<std::uint16_t>((bits >> 31) << 15 | (13 + i % 4) << 10 | (bits >> 13 & 0x3ff));
    if (dtype == DataType::F32) std::memcpy(w.data() + 4 * i, &values[i], 4);
    if (dtype == DataType::BF16) std::memcpy(w.data() + 2 * i, &bf16, 2);
    if (dtype == DataType::F16) std::memcpy(w.data() + 2 * i, &f16, 2);
  }
  return w;
}

void check_linear(DataType stored, DataType compute, std::int64_t rows) {
  const std::int64_t depth = 301, outputs = 77;
  Floats x = numbers(rows * depth, 1);
  const Tensor w = weight(stored, outputs, depth, 2);
  CHECK(agree(rows * outputs, [&](OpsCpu& ops, Floats& y) {
    const Matrix out = matrix(y, outputs);
    ops.linear(matrix(x, depth), *ops.pack({&w, 1}, compute, nullptr), {}, {&out, 1}, std::nullopt);
  }));
}

void check_quantised(const QuantFormat& format, bool int8_activations, std::int64_t rows) {
  const std::int64_t depth = 301, outputs = 77;
  Floats x = numbers(rows * depth, 1);
  const auto quantised = quantize(weight(DataType::F32, outputs, depth, 2), format);
  const QuantizedRows* part = quantised.get();
  CHECK(agree(rows * outputs, [&](OpsCpu& ops, Floats& y) {
    const Matrix out = matrix(y, outputs);
    const auto w = ops.pack_quantized({&part, 1}, DataType::F32, int8_activations, nullptr);
    ops.linear(matrix(x, depth), *w, {}, {&out, 1}, std::nullopt);
  }));
}

struct AttentionSizes {
  std::int64_t heads, kv_heads, head_dim, rows, length, window;
};

// A sequence of `length` tokens, of which the last `rows` ask.
Floats attend(OpsCpu& ops, const AttentionSizes& s, DataType dtype) {
  AttentionShape shape{s.heads, s.kv_heads, s.head_dim, s.window, 0.3f, dtype, 0};
  const std::size_t bytes = ops.kv_block_bytes(s.kv_heads, s.head_dim, dtype);
  std::vector<std::shared_ptr<Buffer>> memory;
  std::vector<std::byte*> blocks;
  for (std::int64_t t = 0; t < s.length; t += kKvBlock) {
    memory.push_back(ops.allocate(bytes));
    std::memset(memory.back()->data(), 0xff, bytes);
    blocks.push_back(memory.back()->data());
  }
  Floats q = numbers(s.rows * s.heads * s.head_dim, 3);
  Floats k = numbers(s.length * s.kv_heads * s.head_dim, 4);
  Floats v = numbers(s.length * s.kv_heads * s.head_dim, 5);
  Floats y = zeros(static_cast<std::int64_t>(q.size()));
  const SequenceRows all{0, s.length, 0, blocks}, last{0, s.rows, s.length - s.rows, blocks};
  ops.kv_write(matrix(k, s.kv_heads * s.head_dim), matrix(v, s.kv_heads * s.head_dim), {&all, 1},
               shape);
  ops.attention(matrix(q, s.heads * s.head_dim), {&last, 1}, shape,
                matrix(y, s.heads * s.head_dim));
  return y;
}

}  // namespace

TEST(linear) {
  for (const std::int64_t rows : {1, 2, 5, 13, 40}) {
    for (const DataType stored : {DataType::F32, DataType::F16, DataType::BF16}) {
      check_linear(stored, DataType::F32, rows);
      check_linear(stored, DataType::BF16, rows);
    }
  }
}

TEST(quantised) {
  for (const std::int64_t rows : {1, 5, 40}) {
    for (const QuantFormat& format : {QuantFormat{4, 32, false}, by_rows(8, 301)}) {
      check_quantised(format, false, rows);
      check_quantised(format, true, rows);
    }
  }
}

TEST(rows) {
  const std::int64_t cols = 83;
  Floats x = numbers(7 * cols, 1), z = numbers(7 * cols, 2), w = numbers(cols, 3);
  CHECK(agree(7 * cols, [&](OpsCpu& ops, Floats& y) {
    ops.rms_norm(matrix(x, cols), w.data(), 1e-6f, matrix(y, cols));
  }));
  for (const HiddenAct act :
       {HiddenAct::Silu, HiddenAct::Gelu, HiddenAct::GeluTanh, HiddenAct::Relu}) {
    CHECK(agree(7 * cols, [&](OpsCpu& ops, Floats& y) {
      ops.act_mul(matrix(x, cols), matrix(z, cols), act, matrix(y, cols));
    }));
  }
  CHECK(agree(7 * cols, [&](OpsCpu& ops, Floats& y) {
    y = x;
    ops.softmax(matrix(y, cols));
  }));
  Floats cos = numbers(7 * 11, 4), sin = numbers(7 * 11, 5);
  Floats heads = numbers(7 * 44, 6);
  CHECK(agree(7 * 44, [&](OpsCpu& ops, Floats& y) {
    y = heads;
    ops.rope(matrix(y, 44), 22, matrix(cos, 11), matrix(sin, 11));
  }));
}

TEST(attention) {
  for (const AttentionSizes& s :
       {AttentionSizes{4, 2, 12, 5, 70, 0}, AttentionSizes{8, 2, 64, 1, 700, 0},
        AttentionSizes{3, 1, 22, 40, 150, 9}, AttentionSizes{1, 1, 80, 1, 1, 0}}) {
    for (const DataType dtype : {DataType::F32, DataType::BF16, DataType::I8}) {
      OpsCpu plain(cpu::kernels_scalar()), best(cpu::kernels());
      CHECK(is_close(attend(best, s, dtype), attend(plain, s, dtype)));
    }
  }
}
