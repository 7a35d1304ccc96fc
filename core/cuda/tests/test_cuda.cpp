// Every operation of a CUDA device against the same one of the CPU, on the same numbers. Built twice: with the kernels emulated,
// which runs anywhere, and as they are, for a machine that has a device. There, INFINILM_CUBLASLT=off leaves large products to
// own kernels. INFINILM_TEST_QUICK leaves out what only repeats: for sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/half.hpp"
#include "cpu/kernels.hpp"
#include "cpu/ops_cpu.hpp"
#include "generate/random.hpp"
#include "generate/sampler.hpp"
#include "infinilm/error.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"

#include "cuda/ops_cuda.hpp"
#if !defined(INFINILM_CUDA_EMULATED)
#include "cuda/cublaslt.hpp"
#endif

using namespace infinilm;
using infinilm::cpu::OpsCpu;

namespace {

using Floats = std::vector<float>;

bool has_library() {
#if defined(INFINILM_CUDA_EMULATED)
  return false;
#else
  const char* library = std::getenv("INFINILM_CUBLASLT");
  return library == nullptr || std::string(library) != "off";
#endif
}

std::unique_ptr<cuda::OpsCuda> open_device() {
  auto ops = std::make_unique<cuda::OpsCuda>(0);
#if !defined(INFINILM_CUDA_EMULATED)
  ops->synchronize();  // its device is this thread's before the library asks for it
  if (has_library()) ops->use(cuda::make_cublaslt());
#endif
  return ops;
}

Ops& device() {
  static const std::unique_ptr<cuda::OpsCuda> ops = open_device();
  return *ops;
}

OpsCpu& host() {
  static OpsCpu ops(cpu::kernels());
  return ops;
}

Floats numbers(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(engine);
  return values;
}

Floats nothing(std::int64_t count) {
  return Floats(static_cast<std::size_t>(count), std::nanf(""));
}

// A matrix on either device, read back at the end. `gap`: columns between its rows that nobody may write to.
class Numbers {
 public:
  Numbers(Ops& ops, const Floats& values, std::int64_t cols, std::int64_t gap = 0)
      : ops_(ops), cols_(cols), stride_(cols + gap) {
    rows_ = cols == 0 ? 0 : static_cast<std::int64_t>(values.size()) / cols;
    Floats padded(static_cast<std::size_t>(rows_ * stride_) + 16, kGap);
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::copy_n(values.begin() + r * cols_, cols_, padded.begin() + r * stride_);
    }
    memory_ = ops.allocate(padded.size() * 4);
    ops.upload(padded.data(), memory_->data(), padded.size() * 4);
  }
  Matrix matrix() const { return {data(), rows_, cols_, stride_}; }
  float* data() const { return reinterpret_cast<float*>(memory_->data()); }
  Floats read() const {
    Floats padded(memory_->nbytes() / 4);
    ops_.download(memory_->data(), padded.data(), padded.size() * 4);
    Floats values;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(padded.size()); ++i) {
      const bool inside = i < rows_ * stride_ && i % stride_ < cols_;
      const float value = padded[static_cast<std::size_t>(i)];
      if (inside) {
        values.push_back(value);
      } else {
        CHECK(value == kGap);
      }
    }
    return values;
  }

 private:
  static constexpr float kGap = 12345.0f;
  Ops& ops_;
  std::int64_t rows_ = 0, cols_, stride_;
  std::shared_ptr<Buffer> memory_;
};

// To `tolerance` of the largest; NaN is never close. Says where it is not.
bool is_close(const Floats& found, const Floats& expected, float tolerance,
              const std::string& what) {
  float largest = 0.0f;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  std::size_t wrong = 0, first = 0;
  float worst = 0.0f;
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    const float error = std::abs(found[i] - expected[i]);
    if (error <= tolerance * largest || (std::isinf(found[i]) && found[i] == expected[i])) continue;
    if (wrong++ == 0) first = i;
    worst = std::max(worst, std::isnan(error) ? INFINITY : error / largest);
  }
  if (wrong == 0 && found.size() == expected.size()) return true;
  std::cerr << what << ": " << wrong << " of " << expected.size() << " wrong (found "
            << found.size() << "), the first at " << first << ": " << found[first] << " for "
            << expected[first] << ", worst " << worst << " of the largest, allowed " << tolerance
            << '\n';
  return false;
}

// What `run(ops, y)` writes to y, on the CPU and on the device.
template <class Run>
bool agree(const Floats& start, std::int64_t cols, std::int64_t gap, float tolerance,
           const std::string& what, Run run) {
  const Numbers expected(host(), start, cols), found(device(), start, cols, gap);
  run(static_cast<Ops&>(host()), expected.matrix());
  run(device(), found.matrix());
  return is_close(found.read(), expected.read(), tolerance, what);
}

float rounded(float x, DataType type) {
  if (type == DataType::F16) return from_f16(to_f16(x));
  if (type == DataType::F32) return x;
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  u = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
  std::memcpy(&x, &u, sizeof u);
  return x;
}
Floats rounded(Floats values, DataType type) {
  for (float& x : values) x = rounded(x, type);
  return values;
}

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

using Order = std::vector<std::int32_t>;

// Inputs in another order.
Order shuffled(std::int64_t inputs, unsigned seed = 1) {
  Order order(static_cast<std::size_t>(inputs));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

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

// What a matrix stands for, row after row.
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

// A weight of some parts on the device, and what its parts stand for in float32 on the CPU.
struct Pair {
  std::unique_ptr<Weight> device, host;
};
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
          std::int64_t inputs, const Order& order = {}) {
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

// Quantised, with its inputs in another order.
struct Ordered {
  QuantFormat format;
};
Pair pack(Ordered f, DataType compute, std::vector<std::int64_t> outputs, std::int64_t inputs) {
  return pack(f.format, compute, std::move(outputs), inputs, shuffled(inputs));
}

std::string text_of(DataType stored_as, DataType compute, std::int64_t rows, std::int64_t outputs,
                    std::int64_t inputs) {
  return concat(name_of(stored_as), " in ", name_of(compute), ", ", rows, " rows, [", outputs, ", ",
                inputs, "]");
}

// Of the largest. A library gets quantised weights rounded to 16 bits; everything else is exact but for the sums.
float product_tolerance(bool is_quantised, DataType compute, std::int64_t rows) {
  constexpr std::int64_t kByOwnKernels = 16;
  const bool rounds =
      is_quantised && compute != DataType::F32 && has_library() && rows > kByOwnKernels;
  if (!rounds) return 1e-5f;
  return compute == DataType::BF16 ? 4e-3f : 5e-4f;
}

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
  for (const bool residual : {false, true}) {
    CHECK(agree(numbers(rows * n, 3), n, 3, tolerance, what + (residual ? ", residual" : ""),
                [&](Ops& ops, Matrix y) {
                  const Numbers in(ops, x, inputs, 4), bias(ops, b, n);
                  const std::vector<const float*> biases = {bias.data()};
                  ops.linear(in.matrix(), product(ops, one), biases, {&y, 1}, residual);
                  ops.synchronize();
                }));
  }
  CHECK(agree(nothing(rows * n), n, 0, tolerance, what + ", part 1 of 2", [&](Ops& ops, Matrix y) {
    const Numbers in(ops, x, inputs), other(ops, nothing(rows * n), n);
    const std::vector<Matrix> outputs = {other.matrix(), y};
    ops.linear(in.matrix(), product(ops, two), {}, outputs, false);
    ops.synchronize();
  }));
  CHECK(agree(nothing(rows * n), n, 0, 3 * tolerance, what + ", act_mul", [&](Ops& ops, Matrix y) {
    const Numbers in(ops, x, inputs), bias(ops, b, n);
    const std::vector<const float*> biases = {nullptr, bias.data()};
    ops.linear_act_mul(in.matrix(), product(ops, two), biases, HiddenAct::Silu, y);
    ops.synchronize();
  }));
}

struct AttentionCase {
  std::int64_t heads, kv_heads, head_dim, window;
  DataType dtype;
  std::vector<std::int64_t> rows, past;  // of each sequence
};

// The blocks of some sequences, full of NaN.
class Cache {
 public:
  Cache(Ops& ops, const AttentionCase& c, DataType dtype)
      : shape_{c.heads, c.kv_heads, c.head_dim, c.window, 0.3f, dtype, 0} {
    const std::size_t layer = ops.kv_block_bytes(c.kv_heads, c.head_dim, dtype);
    shape_.kv_offset = layer;  // as if there were a layer in front
    const std::vector<std::byte> poison(2 * layer, std::byte{0xff});
    std::int64_t row = 0;
    blocks_.resize(c.rows.size());
    for (std::size_t i = 0; i < c.rows.size(); ++i) {
      for (std::int64_t t = 0; t < c.past[i] + c.rows[i]; t += kKvBlock) {
        memory_.push_back(ops.allocate(2 * layer));
        ops.upload(poison.data(), memory_.back()->data(), poison.size());
        blocks_[i].push_back(memory_.back()->data());
      }
      past_.push_back({row, c.past[i], 0, blocks_[i]});
      now_.push_back({row, c.rows[i], c.past[i], blocks_[i]});
      row += std::max(c.rows[i], c.past[i]);
    }
  }
  const AttentionShape& shape() const { return shape_; }
  const std::vector<SequenceRows>& past() const { return past_; }
  const std::vector<SequenceRows>& now() const { return now_; }

 private:
  AttentionShape shape_;
  std::vector<std::shared_ptr<Buffer>> memory_;
  std::vector<std::vector<std::byte*>> blocks_;
  std::vector<SequenceRows> past_, now_;
};

// Multiplied: by a matrix; Seen: and looked at before.
enum class Way { Fused, Steps, Multiplied, Seen };

// x by a matrix of 24 outputs.
Floats multiplied(Ops& ops, Matrix x) {
  constexpr std::int64_t kOutputs = 24;
  const Tensor w =
      stored(rounded(numbers(kOutputs * x.cols, 6), DataType::BF16), DataType::BF16, x.cols);
  const auto weight = ops.pack({&w, 1}, DataType::BF16, nullptr);
  const Numbers y(ops, Floats(static_cast<std::size_t>(x.rows * kOutputs), 0.0f), kOutputs);
  const Matrix out = y.matrix();
  ops.last_use(x);
  ops.linear(x, *weight, {}, {&out, 1}, false);
  return y.read();
}

// Writes the past, then this step through rope and kv_write, then asks.
Floats attend(Ops& ops, const AttentionCase& c, DataType cached, Way way) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < c.rows.size(); ++i) total += std::max(c.rows[i], c.past[i]);
  const std::int64_t q_cols = c.heads * c.head_dim, k_cols = c.kv_heads * c.head_dim;
  const std::int64_t half = c.head_dim / 2;
  const Cache cache(ops, c, cached);
  const DataType keep = c.dtype == DataType::F16 ? DataType::F16 : DataType::F32;
  const Numbers old_k(ops, rounded(numbers(total * k_cols, 1), keep), k_cols);
  const Numbers old_v(ops, rounded(numbers(total * k_cols, 2), keep), k_cols);
  ops.kv_write(old_k.matrix(), old_v.matrix(), cache.past(), cache.shape());
  // Rotated so that float16 holds the result exactly: cos 1 and sin 0, or cos 0 and sin 1.
  Floats cosines(static_cast<std::size_t>(total * half)), sines(cosines.size());
  for (std::size_t i = 0; i < cosines.size(); ++i) {
    cosines[i] = i % 3 == 0 ? 1.0f : 0.0f;
    sines[i] = 1.0f - cosines[i];
  }
  const Numbers q(ops, numbers(total * q_cols, 3), q_cols);
  const Numbers k(ops, rounded(numbers(total * k_cols, 4), keep), k_cols);
  const Numbers v(ops, rounded(numbers(total * k_cols, 5), keep), k_cols);
  const Numbers cos(ops, cosines, half), sin(ops, sines, half);
  if (c.head_dim % 2 == 0) {
    ops.rope(q.matrix(), c.head_dim, cos.matrix(), sin.matrix());
    ops.rope(k.matrix(), c.head_dim, cos.matrix(), sin.matrix());
  }
  ops.kv_write(k.matrix(), v.matrix(), cache.now(), cache.shape());
  const Numbers y(ops, Floats(static_cast<std::size_t>(total * q_cols), 0.0f), q_cols);
  if (way != Way::Steps) {
    ops.attention(q.matrix(), cache.now(), cache.shape(), y.matrix());
    if (way == Way::Seen) y.read();
    return way == Way::Fused ? y.read() : multiplied(ops, y.matrix());
  }
  std::int64_t keys = 3;  // more than the longest has
  for (std::size_t i = 0; i < c.rows.size(); ++i) keys = std::max(keys, c.rows[i] + c.past[i] + 3);
  const Numbers scores(ops, Floats(static_cast<std::size_t>(c.heads * total * keys), 0.0f), keys);
  ops.attention_scores(q.matrix(), cache.now(), cache.shape(), scores.data(), keys);
  ops.softmax(scores.matrix());
  ops.attention_mix(scores.data(), keys, cache.now(), cache.shape(), y.matrix());
  return y.read();
}

void check_attention(const AttentionCase& c) {
  const DataType expected = c.dtype == DataType::F16 ? DataType::F32 : c.dtype;
  const std::string what =
      concat("attention ", c.heads, "/", c.kv_heads, " x ", c.head_dim, ", window ", c.window, ", ",
             name_of(c.dtype), ", ", c.rows.size(), " sequences");
  // On tensor cores queries and weights are rounded to the cache's type.
  const float fused = c.dtype == DataType::BF16 ? 2e-2f : c.dtype == DataType::F16 ? 3e-3f : 1e-5f;
  CHECK(is_close(attend(device(), c, c.dtype, Way::Fused), attend(host(), c, expected, Way::Fused),
                 fused, what));
  CHECK(is_close(attend(device(), c, c.dtype, Way::Steps), attend(host(), c, expected, Way::Steps),
                 1e-5f, what + ", in steps"));
}

bool is_quick() { return std::getenv("INFINILM_TEST_QUICK") != nullptr; }

constexpr DataType kF32 = DataType::F32, kBf16 = DataType::BF16, kF16 = DataType::F16;

}  // namespace

TEST(floats) {
  struct {
    DataType stored, compute;
  } types[] = {{kF32, kF32},  {kF16, kF32}, {kBf16, kF32}, {kBf16, kBf16},
               {kF32, kBf16}, {kF16, kF16}, {kF32, kF16}};
  for (const auto& t : types) {
    for (const std::int64_t rows : {1, 3, 16, 33, 70}) {
      check_products(t.stored, t.compute, rows, 37, 301,
                     text_of(t.stored, t.compute, rows, 37, 301));
    }
    if (is_quick()) continue;
    check_products(t.stored, t.compute, 1, 16, 2048, text_of(t.stored, t.compute, 1, 16, 2048));
    check_products(t.stored, t.compute, 2, 1, 1, text_of(t.stored, t.compute, 2, 1, 1));
    check_products(t.stored, t.compute, 5, 90, 256, text_of(t.stored, t.compute, 5, 90, 256));
  }
  // More columns than shared memory has room for.
  check_products(kBf16, kBf16, 16, 17, 14336, text_of(kBf16, kBf16, 16, 17, 14336));
  check_products(kF32, kF32, 4, 17, 14336, text_of(kF32, kF32, 4, 17, 14336));
}

TEST(quantised) {
  const QuantFormat formats[] = {{8, 32, false},  {8, 64, false}, {8, 128, true},
                                 {8, 96, true},   {4, 32, true},  {4, 32, false},
                                 {4, 128, false}, {4, 128, true}, {4, 64, false}};
  for (const QuantFormat& f : formats) {
    if (is_quick() && !f.zeros) continue;
    for (const DataType compute : {kF32, kBf16, kF16}) {
      for (const std::int64_t rows : {1, 16, 20}) {
        const std::string what =
            concat(f.bits, " bits, groups of ", f.group, f.zeros ? ", zeros" : "", ", in ",
                   name_of(compute), ", ", rows, " rows");
        check_products(f, compute, rows, 37, 301, what);
        if (rows == 20 && !is_quick()) {
          check_products(f, compute, 64, 16, 2048, what + ", 64 of them, 2048");
        }
        if (rows == 1) check_products(f, compute, rows, 16, 2048, what + ", 2048");
      }
    }
  }
}

constexpr QuantFormat kOrderedFormats[] = {{8, 32, true}, {4, 32, false}, {4, 128, true}};

TEST(ordered) {
  for (const QuantFormat& f : kOrderedFormats) {
    if (is_quick() && !f.zeros) continue;
    for (const DataType compute : {kF32, kBf16, kF16}) {
      for (const std::int64_t rows : {1, 2, 16, 20, 70}) {
        if (is_quick() && rows == 16) continue;
        const std::string what = concat(f.bits, " bits, groups of ", f.group, ", in ",
                                        name_of(compute), ", ", rows, " rows, in another order");
        check_products(Ordered{f}, compute, rows, 37, 301, what);
        if (rows <= 2) check_products(Ordered{f}, compute, rows, 16, 2048, what + ", 2048");
      }
    }
  }
  const QuantFormat& f = kOrderedFormats[0];
  const RandomRows one(16, 64, f, 1, shuffled(64, 1)), other(16, 64, f, 2, shuffled(64, 2));
  const std::vector<const QuantizedRows*> parts = {&one, &other};
  for (Ops* ops : {&device(), static_cast<Ops*>(&host())}) {
    CHECK_THROWS(ValueError, "one order", ops->pack_quantized(parts, kF32, false, nullptr));
  }
}

#if defined(INFINILM_CUDA_EMULATED)
// A library for large products, on the emulation's memory.
class PlainProduct final : public cuda::MatrixProduct {
 public:
  // `declines`: whatever it is asked for.
  explicit PlainProduct(bool declines = false) : declines_(declines) {}
  bool multiply(void*, DataType type, std::int64_t m, std::int64_t n, std::int64_t k, const void* a,
                std::int64_t a_stride, const void* b, std::int64_t b_stride, float beta, float* c,
                std::int64_t c_stride) override {
    if (declines_) return false;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        float sum = beta == 0.0f ? 0.0f : beta * c[i * c_stride + j];
        for (std::int64_t l = 0; l < k; ++l) {
          sum += at(type, a, i * a_stride + l) * at(type, b, j * b_stride + l);
        }
        c[i * c_stride + j] = sum;
      }
    }
    return true;
  }

 private:
  static float at(DataType type, const void* data, std::int64_t i) {
    if (type == DataType::F32) return static_cast<const float*>(data)[i];
    const std::uint16_t half = static_cast<const std::uint16_t*>(data)[i];
    return type == DataType::F16 ? from_f16(half) : from_bf16(half);
  }
  bool declines_;
};

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

// More rows than own kernels take: as they would multiply them; also where the library will not.
void check_library(bool declines) {
  constexpr std::int64_t kRows = 70, kInputs = 301, kOutputs = 37;
  cuda::OpsCuda ops(0);
  ops.use(std::make_unique<PlainProduct>(declines));
  for (const QuantFormat& f : kOrderedFormats) {
    for (const DataType compute : {kF32, kBf16, kF16}) {
      const Order order = shuffled(kInputs);
      const RandomRows gate(kOutputs, kInputs, f, 1, order), up(kOutputs, kInputs, f, 2, order);
      const std::vector<const QuantizedRows*> parts = {&gate, &up};
      const auto run = [&](Ops& by) {
        const auto weight = by.pack_quantized(parts, compute, false, nullptr);
        const Numbers x(by, rounded(numbers(kRows * kInputs, 1), compute), kInputs, 4),
            y(by, nothing(kRows * kOutputs), kOutputs);
        by.linear_act_mul(x.matrix(), *weight, {}, HiddenAct::Silu, y.matrix());
        return y.read();
      };
      // It multiplies weights rounded to 16 bits; own kernels scale exactly.
      const float tolerance = compute == kF32 ? 3e-5f : compute == kF16 ? 3e-3f : 2e-2f;
      CHECK(is_close(run(ops), run(device()), tolerance,
                     concat("by a library, ", f.bits, " bits in ", name_of(compute))));
    }
  }
}

TEST(ordered_by_a_library) { check_library(false); }
TEST(a_library_that_declines) { check_library(true); }
#endif

// A norm is not fused with a product into what is normalised.
TEST(product_into_what_was_normalised) {
  constexpr std::int64_t n = 128;
  const Pair w = pack(kF32, kF32, {n}, n);
  for (const bool residual : {false, true}) {
    CHECK(agree(
        numbers(n, 3), n, 0, 1e-4f, "norm, then a product into its x", [&](Ops& ops, Matrix x) {
          const Numbers norm(ops, numbers(n, 2), n), h(ops, nothing(n), n);
          ops.rms_norm(x, norm.data(), 1e-6f, h.matrix());
          ops.linear(h.matrix(), &ops == &device() ? *w.device : *w.host, {}, {&x, 1}, residual);
          ops.synchronize();
        }));
  }
}

// What last_use said is forgotten with the product that failed.
TEST(last_use_of_a_product_that_fails) {
  constexpr std::int64_t n = 64;
  const Pair five = pack(kF32, kF32, {16, 16, 16, 16, 16}, n), w = pack(kF32, kF32, {n}, n);
  const Numbers x(device(), numbers(n, 1), n), norm(device(), numbers(n, 2), n),
      h(device(), nothing(n), n), y(device(), nothing(n), n);
  const std::vector<Matrix> parts(5, Matrix{y.data(), 1, 16, 16});
  device().last_use(h.matrix());
  CHECK_THROWS(Error, "at most", device().linear(h.matrix(), *five.device, {}, parts, false));
  device().rms_norm(x.matrix(), norm.data(), 1e-6f, h.matrix());
  const Matrix out = y.matrix();
  device().linear(h.matrix(), *w.device, {}, {&out, 1}, false);
  CHECK(std::isfinite(h.read()[0]));
}

// x of any size: float16 has the range for it, run by run.
TEST(quantised_extremes) {
  constexpr std::int64_t kRows = 3, kInputs = 192, kOutputs = 24;
  for (const float size : {0.0f, 1e-44f, 1e-30f, 1e-5f, 3e4f, 1e30f}) {
    for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{4, 128, false}}) {
      const Pair w = pack(f, kBf16, {kOutputs}, kInputs);
      Floats values = rounded(numbers(kRows * kInputs, 1), kF16);
      for (std::size_t i = 0; i < values.size(); i += 2) values[i] *= size;
      for (const std::int64_t rows : {std::int64_t{1}, kRows}) {
        const Floats some(values.begin(), values.begin() + rows * kInputs);
        CHECK(agree(nothing(rows * kOutputs), kOutputs, 0, 1e-3f, concat("x times ", size),
                    [&](Ops& ops, Matrix y) {
                      const Numbers in(ops, some, kInputs);
                      ops.linear(in.matrix(), &ops == &device() ? *w.device : *w.host, {}, {&y, 1},
                                 false);
                      ops.synchronize();
                    }));
      }
    }
  }
}

// What was put off before the columns are gathered is done, and whole.
TEST(ordered_after_others) {
  constexpr std::int64_t kInputs = 72, kInner = 40;
  for (const DataType compute : {kF32, kBf16}) {
    const Pair gate_up = pack(Ordered{{4, 32, true}}, compute, {kInner, kInner}, kInputs);
    const Pair down = pack(Ordered{{8, 32, false}}, compute, {kInputs}, kInner);
    for (const std::int64_t rows : {1, 2, 5, 40}) {
      const std::string what =
          concat("mlp in another order, ", name_of(compute), ", ", rows, " rows");
      // The CPU's weights here do not have x rounded.
      const float tolerance = compute == kF32 ? 3e-5f : 1e-2f;
      const Floats start = numbers(rows * kInputs, 1);
      CHECK(agree(start, kInputs, 0, tolerance, what, [&](Ops& ops, Matrix y) {
        const auto of = [&](const Pair& w) -> const Weight& {
          return &ops == &device() ? *w.device : *w.host;
        };
        const Numbers w(ops, numbers(kInputs, 2), kInputs),
            h(ops, nothing(rows * kInputs), kInputs), inner(ops, nothing(rows * kInner), kInner);
        ops.rms_norm(y, w.data(), 1e-6f, h.matrix());
        ops.last_use(h.matrix());
        ops.linear_act_mul(h.matrix(), of(gate_up), {}, HiddenAct::Silu, inner.matrix());
        ops.last_use(inner.matrix());
        ops.linear(inner.matrix(), of(down), {}, {&y, 1}, true);
        ops.synchronize();
      }));
    }
  }
}

// Values, codes, scales and zeros as the CPU gives them.
void check_unpacking(const RandomRows& rows) {
  const QuantizedRows* part = &rows;
  const auto packed = device().pack_quantized({&part, 1}, kBf16, false, nullptr);
  const std::int64_t outputs[] = {rows.outputs()};
  CHECK(packed->nbytes() == device().packed_bytes(outputs, rows.inputs(), kF32, rows.format()) +
                                rows.input_order().size() * sizeof(std::int32_t));
  const Tensor wide = device().unpack(*packed, 0);
  const Floats expected = meaning(rows);
  CHECK(std::memcmp(wide.data(), expected.data(), expected.size() * 4) == 0);
  const QuantizedMatrix found = device().unpack_quantized(*packed, 0);
  const auto same = host().pack_quantized({&part, 1}, kBf16, false, nullptr);
  const QuantizedMatrix kept = host().unpack_quantized(*same, 0);
  CHECK(std::memcmp(found.codes.data(), kept.codes.data(), kept.codes.nbytes()) == 0);
  CHECK(std::memcmp(found.scales.data(), kept.scales.data(), kept.scales.nbytes()) == 0);
  CHECK(std::memcmp(found.zeros.data(), kept.zeros.data(), kept.zeros.nbytes()) == 0);
  CHECK(std::ranges::equal(packed->input_order(), rows.input_order()));
  CHECK(found.input_order == kept.input_order);
}

TEST(unpacking) {
  const Floats values = numbers(19 * 37, 1);
  for (const DataType dtype : {kF32, kBf16, kF16}) {
    const Tensor source = stored(values, dtype, 37);
    std::size_t seen = 0;
    const auto packed = device().pack({&source, 1}, kF32,
                                      [&](std::size_t part, std::size_t begin, std::size_t end) {
                                        CHECK(part == 0 && begin == seen);
                                        seen = end;
                                      });
    CHECK(seen == source.nbytes());
    CHECK(packed->nbytes() == device().packed_bytes(std::vector<std::int64_t>{19}, 37, dtype, {}));
    const Tensor back = device().unpack(*packed, 0);
    CHECK(back.dtype() == dtype && back.shape() == source.shape());
    CHECK(std::memcmp(back.data(), source.data(), source.nbytes()) == 0);
  }
  for (const QuantFormat& f : kOrderedFormats) {
    for (const Order& order : {Order{}, shuffled(301)}) {
      check_unpacking(RandomRows(37, 301, f, 5, order));
    }
  }
  const Tensor plain = stored(values, kF32, 37);
  const auto packed = device().pack({&plain, 1}, kF32, nullptr);
  CHECK_THROWS(ValueError, "quantised", device().unpack_quantized(*packed, 0));
}

TEST(embedding) {
  const std::vector<std::int64_t> ids = {3, 0, 18, 3};
  for (const DataType dtype : {kF32, kBf16, kF16}) {
    const Pair table = pack(dtype, kF32, {19}, 37);
    CHECK(agree(nothing(4 * 37), 37, 2, 0.0f, "embed", [&](Ops& ops, Matrix y) {
      ops.embed(ids, &ops == &device() ? *table.device : *table.host, y);
      ops.synchronize();
    }));
  }
  for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{4, 128, false}}) {
    for (const Order& order : {Order{}, shuffled(301)}) {
      const Pair table = pack(f, kF32, {19}, 301, order);
      CHECK(agree(nothing(4 * 301), 301, 0, 0.0f, "embed, quantised", [&](Ops& ops, Matrix y) {
        ops.embed(ids, &ops == &device() ? *table.device : *table.host, y);
        ops.synchronize();
      }));
    }
  }
}

TEST(rows) {
  for (const std::int64_t cols : {1, 83, 256, 1200}) {
    const Floats x = numbers(7 * cols, 1), z = numbers(7 * cols, 2), w = numbers(cols, 3);
    for (const std::int64_t gap : {0, 1, 4}) {
      const auto with_inputs = [&](auto run) {
        return [&, run](Ops& ops, Matrix y) {
          const Numbers a(ops, x, cols, gap), b(ops, z, cols), c(ops, w, cols);
          run(ops, a, b, c, y);
          ops.synchronize();
        };
      };
      CHECK(agree(nothing(7 * cols), cols, gap, 1e-5f, "rms_norm",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers& c,
                                  Matrix y) { ops.rms_norm(a.matrix(), c.data(), 1e-6f, y); })));
      CHECK(agree(x, cols, gap, 1e-5f, "rms_norm in place",
                  with_inputs([&](Ops& ops, const Numbers&, const Numbers&, const Numbers& c,
                                  Matrix y) { ops.rms_norm(y, c.data(), 1e-6f, y); })));
      for (const HiddenAct act :
           {HiddenAct::Silu, HiddenAct::Gelu, HiddenAct::GeluTanh, HiddenAct::Relu}) {
        CHECK(agree(nothing(7 * cols), cols, gap, 1e-5f, concat("act_mul ", static_cast<int>(act)),
                    with_inputs([&](Ops& ops, const Numbers& a, const Numbers& b, const Numbers&,
                                    Matrix y) { ops.act_mul(a.matrix(), b.matrix(), act, y); })));
      }
      CHECK(agree(z, cols, gap, 0.0f, "add",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers&,
                                  Matrix y) { ops.add(a.matrix(), y); })));
      CHECK(agree(nothing(7 * cols), cols, gap, 0.0f, "copy",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers&,
                                  Matrix y) { ops.copy(a.matrix(), y); })));
    }
    Floats masked = x;
    for (std::int64_t i = 0; i < cols; ++i) masked[static_cast<std::size_t>(i)] = -INFINITY;
    if (cols > 1) masked.back() = -INFINITY;
    CHECK(agree(masked, cols, 0, 1e-5f, "softmax", [&](Ops& ops, Matrix y) {
      ops.softmax(y);
      ops.synchronize();
    }));
  }
  const Floats cos = numbers(7 * 11, 4), sin = numbers(7 * 11, 5), heads = numbers(7 * 44, 6);
  CHECK(agree(heads, 44, 1, 1e-6f, "rope", [&](Ops& ops, Matrix y) {
    const Numbers c(ops, cos, 11), s(ops, sin, 11);
    ops.rope(y, 22, c.matrix(), s.matrix());
    ops.synchronize();
  }));
}

TEST(largest) {
  Floats x = numbers(4 * 3000, 1);
  x[2999] = x[17] = 9.0f;       // twice: the first counts
  x[3000 + 2999] = 9.0f;        // the last column
  x[6000 + 5] = std::nanf("");  // larger than anything
  x[6000 + 100] = INFINITY;
  std::fill(x.begin() + 9000, x.end(), -INFINITY);
  const Numbers on_device(device(), x, 3000, 1);
  std::vector<Chosen> found(4);
  device().argmax(on_device.matrix(), found);
  CHECK(found[0].column == 17 && found[0].largest == 9.0f);
  CHECK(found[1].column == 2999);
  CHECK(found[2].column == 5 && std::isnan(found[2].largest));
  CHECK(found[3].column == 0);
}

Sampling sampling_of(const GenerationConfig& config) {
  return {config.temperature, static_cast<std::int64_t>(config.top_k), config.top_p, config.min_p};
}

// The columns that the sampler of the host draws from the same rows.
void check_sampling(const Floats& x, std::int64_t cols, const GenerationConfig& config,
                    const std::string& what) {
  const Numbers on_device(device(), x, cols, 1);
  const auto rows = static_cast<std::size_t>(on_device.matrix().rows);
  for (const std::uint64_t seed : {1, 3}) {
    std::vector<double> numbers;
    for (std::size_t r = 0; r < rows; ++r) numbers.push_back(uniform(seed, r, 0));
    if (seed == 3) numbers[0] = 0;
    if (seed == 3 && rows > 1) numbers[1] = 1 - 0x1p-53;
    std::vector<Chosen> found(rows);
    CHECK(device().sample(on_device.matrix(), sampling_of(config), numbers, found));
    for (std::size_t r = 0; r < rows; ++r) {
      const Logits row(x.data() + static_cast<std::int64_t>(r) * cols,
                       static_cast<std::size_t>(cols));
      const std::int64_t expected = draw(candidates(row, config), numbers[r]);
      if (found[r].column == expected) continue;
      std::cerr << what << ", row " << r << ": column " << found[r].column << ", expected "
                << expected << '\n';
      CHECK(found[r].column == expected);
    }
  }
}

TEST(sampling) {
  GenerationConfig all;
  all.do_sample = true;
  all.top_k = 0;
  const auto with = [&](auto change) {
    GenerationConfig config = all;
    change(config);
    return config;
  };
  const std::vector<GenerationConfig> configs = {
      all,
      with([](auto& c) { c.top_k = 50; }),
      with([](auto& c) { c.top_k = 1, c.temperature = 1.7; }),
      with([](auto& c) { c.top_p = 0.9; }),
      with([](auto& c) { c.top_p = 1e-9; }),
      with([](auto& c) { c.top_k = 40, c.top_p = 0.5, c.temperature = 3; }),
      with([](auto& c) { c.min_p = 0.1; }),
      with([](auto& c) { c.top_k = 200, c.top_p = 0.95, c.min_p = 0.02, c.temperature = 0.3; }),
      with([](auto& c) { c.temperature = 1e-30; }),
      with([](auto& c) { c.temperature = 1e4, c.top_p = 0.5; }),
      with([](auto& c) { c.top_k = 5000; }),
  };
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const std::string name = concat("settings ", i);
    for (const std::int64_t cols : {1, 7, 2100}) {
      check_sampling(numbers(3 * cols, 5), cols, configs[i], concat(name, ", ", cols, " columns"));
    }
    if (i % 3 == 0) {
      check_sampling(numbers(9000, 6), 9000, configs[i], concat(name, ", many pieces"));
    }
    if (is_quick() && i % 3 != 0) continue;
    Floats few = numbers(2 * 2000, 7);  // of a few values, of both signs, and most of them excluded
    for (float& v : few) v = std::round(v * 2);
    few[5] = -0.0f;
    for (std::size_t j = 2000; j < few.size(); ++j) {
      if (j % 7 != 0) few[j] = -INFINITY;
    }
    check_sampling(few, 2000, configs[i], concat(name, ", equal ones"));
  }
  check_sampling(numbers(70 * 40, 8), 40, configs[1], "more rows than are done at once");

  Floats odd = numbers(4 * 100, 9);
  odd[3] = std::nanf("");
  odd[103] = INFINITY;
  std::fill_n(odd.begin() + 200, 100, -INFINITY);
  const Numbers on_device(device(), odd, 100);
  std::vector<Chosen> found(4);
  const std::vector<double> numbers(4, 0.5);
  for (const auto& config : configs) {
    CHECK(device().sample(on_device.matrix(), sampling_of(config), numbers, found));
    CHECK(std::isnan(found[0].largest) && found[1].largest == INFINITY);
    CHECK(found[2].largest == -INFINITY && std::isfinite(found[3].largest));
  }
  constexpr std::int64_t kTooMany = (std::int64_t{1} << 21) + 1;
  CHECK(!device().sample({nullptr, 1, kTooMany, kTooMany}, {}, numbers, found));
}

TEST(log_probabilities) {
  constexpr std::int64_t kCols = 3001;
  Floats x = numbers(6 * kCols, 3);
  x[5] = -INFINITY;
  for (std::int64_t i = 0; i < kCols; ++i) x[static_cast<std::size_t>(kCols + i)] *= 30;
  x[2 * kCols + 17] = std::nanf("");
  x[3 * kCols + 17] = INFINITY;
  std::fill_n(x.begin() + 4 * kCols, kCols, -INFINITY);
  const std::vector<std::int64_t> columns = {5, 3000, 0, 0, 0, 7};
  std::vector<float> expected(6), found(6);
  const Numbers on_host(host(), x, kCols), on_device(device(), x, kCols, 2);
  host().log_probabilities(on_host.matrix(), columns, expected);
  device().log_probabilities(on_device.matrix(), columns, found);
  CHECK(expected[0] == -INFINITY && found[0] == -INFINITY);
  for (const std::size_t r : {1, 5}) CHECK(std::abs(found[r] - expected[r]) < 1e-5f);
  for (const std::size_t r : {2, 3, 4}) CHECK(std::isnan(expected[r]) && std::isnan(found[r]));
}

TEST(penalties) {
  constexpr std::int64_t kCols = 500;
  const Floats x = numbers(3 * kCols, 4);
  const std::vector<UsedToken> used = {{3, 0, 0}, {7, 2, 0}, {499, 1, 1}, {0, 5, 2}, {3, 1, 2}};
  for (const Penalties& how :
       {Penalties{1.3, 0, 0}, Penalties{1, 0.4, 0}, Penalties{0.8, 0.5, -0.2}}) {
    CHECK(agree(x, kCols, 1, 1e-7f, "penalties",
                [&](Ops& ops, Matrix y) { ops.penalize(y, how, used); }));
  }
}

// What is put off and fused leaves the same in memory as what is not.
TEST(put_off) {
  const std::int64_t n = 37;
  for (const auto& [inputs, rows] : {std::pair<std::int64_t, std::int64_t>{301, 1},
                                     {301, 2},
                                     {301, 5},
                                     {256, 1},
                                     {1200, 2},
                                     {256, 5}}) {
    for (const DataType compute : {kF32, kBf16}) {
      const Pair weight = pack(kF32, compute, {n}, inputs);
      const Numbers x(device(), numbers(rows * inputs, 1), inputs),
          w(device(), numbers(inputs, 2), inputs);
      const Numbers h(device(), nothing(rows * inputs), inputs), y(device(), nothing(rows * n), n);
      const Numbers h2(device(), nothing(rows * inputs), inputs),
          y2(device(), nothing(rows * n), n);
      const Matrix out = y.matrix(), out2 = y2.matrix();
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h.matrix());
      device().linear(h.matrix(), *weight.device, {}, {&out, 1}, false);
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h2.matrix());
      device().submit();
      device().linear(h2.matrix(), *weight.device, {}, {&out2, 1}, false);
      CHECK(is_close(h.read(), h2.read(), 1e-6f, "the norm"));
      // A last bit of the norm may round to another bfloat16.
      CHECK(is_close(y.read(), y2.read(), compute == kF32 ? 1e-5f : 1e-3f, "the product"));
    }
  }
}

// So many tiles that blocks are dealt most of them one by one.
TEST(dealt_tiles) {
#if defined(INFINILM_CUDA_EMULATED)
  constexpr std::int64_t n = 700;  // for three multiprocessors
#else
  constexpr std::int64_t n = 20000;
#endif
  check_products(kBf16, kBf16, 1, n, 72, text_of(kBf16, kBf16, 1, n, 72));
  check_products(kF32, kF32, 2, n, 40, text_of(kF32, kF32, 2, n, 40));
  check_products(QuantFormat{4, 32, true}, kBf16, 1, n, 72, "4 bits, many outputs");
}

// What is given up is not there afterwards, but the product of it is the same.
TEST(last_use) {
  constexpr std::int64_t kInputs = 72, kInner = 40;
  const Pair gate_up = pack(kBf16, kBf16, {kInner, kInner}, kInputs);
  const Pair down = pack(kBf16, kBf16, {kInputs}, kInner);
  for (const std::int64_t rows : {1, 2, 5, 40}) {
    const Numbers x(device(), numbers(rows * kInputs, 1), kInputs),
        w(device(), numbers(kInputs, 2), kInputs);
    const auto mlp = [&](bool gives_up) {
      const Numbers h(device(), nothing(rows * kInputs), kInputs),
          inner(device(), nothing(rows * kInner), kInner),
          y(device(), nothing(rows * kInputs), kInputs);
      const Matrix out = y.matrix();
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h.matrix());
      if (gives_up) device().last_use(h.matrix());
      device().linear_act_mul(h.matrix(), *gate_up.device, {}, HiddenAct::Silu, inner.matrix());
      if (gives_up) device().last_use(inner.matrix());
      device().linear(inner.matrix(), *down.device, {}, {&out, 1}, false);
      return y.read();
    };
    CHECK(is_close(mlp(true), mlp(false), 0.0f, concat("the last use of ", rows, " rows")));
  }
}

// A recorded step gives for other ids and other lengths what the operations themselves give.
template <class Format>
void check_recording(Format format) {
  constexpr std::int64_t kHidden = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kSequences = 3;
  const Pair table = pack(kBf16, kBf16, {50}, kHidden);
  const std::vector<std::int64_t> outputs_of_qkv = {kHeads * kHeadDim, kKvHeads * kHeadDim,
                                                    kKvHeads * kHeadDim};
  const Pair qkv = pack(format, kBf16, outputs_of_qkv, kHidden);
  Ops& ops = device();
  const AttentionCase c{kHeads, kKvHeads, kHeadDim, 0, kBf16, {1, 1, 1}, {130, 64, 1}};
  const Cache cache(ops, c, kBf16);
  const std::int64_t total = 130 + 64 + 1;
  const Numbers past(ops, numbers(total * kKvHeads * kHeadDim, 1), kKvHeads * kHeadDim);
  ops.kv_write(past.matrix(), past.matrix(), cache.past(), cache.shape());
  std::vector<SequenceRows> now = cache.now();
  for (std::int64_t s = 0; s < kSequences; ++s) now[static_cast<std::size_t>(s)].row_begin = s;
  const Numbers norm(ops, numbers(kHidden, 2), kHidden);
  const Numbers x(ops, nothing(kSequences * kHidden), kHidden),
      h(ops, nothing(kSequences * kHidden), kHidden);
  const Numbers q(ops, nothing(kSequences * kHidden), kHidden),
      y(ops, nothing(kSequences * kHidden), kHidden);
  const Numbers k(ops, nothing(kSequences * 32), 32), v(ops, nothing(kSequences * 32), 32);
  const Numbers cos(ops, numbers(kSequences * 8, 3), 8), sin(ops, numbers(kSequences * 8, 4), 8);
  std::vector<std::int64_t> ids = {3, 49, 0};
  const auto body = [&] {
    ops.begin_step(ids, now);
    const std::vector<Matrix> outputs = {q.matrix(), k.matrix(), v.matrix()};
    ops.embed(ids, *table.device, x.matrix());
    ops.rms_norm(x.matrix(), norm.data(), 1e-6f, h.matrix());
    ops.linear(h.matrix(), *qkv.device, {}, outputs, false);
    ops.rope(q.matrix(), kHeadDim, cos.matrix(), sin.matrix());
    ops.rope(k.matrix(), kHeadDim, cos.matrix(), sin.matrix());
    ops.kv_write(k.matrix(), v.matrix(), now, cache.shape());
    ops.attention(q.matrix(), now, cache.shape(), y.matrix());
  };
  body();
  ids[1] = 7;  // what was not sent before the recording
  const auto recording = ops.record(body);
  for (int step = 0; step < 3; ++step) {
    for (auto& id : ids) id = (id + 7) % 50;
    for (auto& s : now) s.past += step == 0 ? 0 : 1;  // the last block has room
    CHECK(ops.replay(*recording, ids, now));
    const Floats found = y.read();
    body();
    CHECK(is_close(found, y.read(), 0.0f, "a recorded step"));
  }
}

TEST(recording) {
  if (!device().can_record()) return;
  check_recording(kBf16);
  check_recording(Ordered{{8, 32, true}});
}

TEST(attention) {
  for (const DataType dtype : {kF32, kBf16, kF16, DataType::I8}) {
    if (is_quick() && (dtype == kF16 || dtype == kF32)) continue;
    check_attention({4, 2, 12, 0, dtype, {5}, {65}});
    check_attention({8, 2, 64, 0, dtype, {1}, {200}});
    check_attention({8, 2, 64, 0, dtype, {1, 1, 1}, {0, 63, 130}});
    check_attention({4, 2, 64, 0, dtype, {1, 1}, {700, 511}});
    check_attention({8, 2, 64, 50, dtype, {1, 1}, {170, 20}});
    check_attention({3, 1, 22, 9, dtype, {40, 1, 3}, {110, 64, 0}});
    check_attention({4, 4, 128, 0, dtype, {70}, {0}});
    check_attention({4, 1, 128, 33, dtype, {20}, {130}});
    check_attention({1, 1, 80, 0, dtype, {1}, {0}});
    check_attention({2, 1, 96, 0, dtype, {17}, {64}});
    check_attention({2, 1, 256, 0, dtype, {3}, {70}});
    check_attention({20, 1, 16, 0, dtype, {7, 1}, {0, 70}});
    check_attention({40, 1, 32, 0, dtype, {1}, {70}});
  }
  CHECK_THROWS(ValueError, "kv_cache_dtype", device().kv_block_bytes(1, 8, DataType::F64));
}
