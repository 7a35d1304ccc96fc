// Times of single operations on a CUDA device, at the sizes of known models, beside what the device's memory could do. One line of
// JSON each. `bench_cuda [quick] [names…]`: those that contain one of the names.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cuda/cublaslt.hpp"
#include "cuda/ops_cuda.hpp"
#include "infinilm/error.hpp"

using namespace infinilm;

namespace {

cuda::OpsCuda& ops() {
  static cuda::OpsCuda all(0);
  return all;
}

// Cheap numbers around 0, none of them special.
std::uint32_t next(std::uint32_t& state) { return state = state * 1664525u + 1013904223u; }

Tensor random_matrix(std::int64_t outputs, std::int64_t inputs) {
  Tensor w = Tensor::empty({outputs, inputs}, DataType::BF16);
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    const std::uint32_t r = next(state);
    // bfloat16 between 2^-7 and 2^-5 of either sign.
    const auto bits =
        static_cast<std::uint16_t>((r >> 31) << 15 | (120 + (r >> 30 & 1)) << 7 | (r >> 16 & 0x7f));
    std::memcpy(w.data() + 2 * i, &bits, sizeof bits);
  }
  return w;
}

class RandomRows final : public QuantizedRows {
 public:
  RandomRows(std::int64_t outputs, std::int64_t inputs, QuantFormat format)
      : outputs_(outputs), inputs_(inputs), format_(format) {}
  std::int64_t outputs() const override { return outputs_; }
  std::int64_t inputs() const override { return inputs_; }
  const QuantFormat& format() const override { return format_; }
  void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t>) const noexcept override {
    std::uint32_t state = static_cast<std::uint32_t>(row);
    for (auto& c : codes)
      c = static_cast<std::uint8_t>(next(state) >> 24 & ((1u << format_.bits) - 1));
    for (auto& s : scales) s = 0.0078125f;
  }

 private:
  std::int64_t outputs_, inputs_;
  QuantFormat format_;
};

struct Floats {
  explicit Floats(std::int64_t rows, std::int64_t columns) : cols(columns) {
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    std::uint32_t state = 7;
    for (float& v : values) v = static_cast<float>(next(state) >> 8) * 0x1p-23f - 1.0f;
    memory = ops().allocate(values.size() * 4);
    ops().upload(values.data(), memory->data(), values.size() * 4);
    matrix = {reinterpret_cast<float*>(memory->data()), rows, columns, columns};
  }
  std::int64_t cols;
  std::shared_ptr<Buffer> memory;
  Matrix matrix;
};

// Microseconds of one call: many are put into a recording, so that launching costs what it costs in decoding. `call(i)` should read
// other memory for other i.
template <class Call>
double microseconds(int calls, Call call) {
  const auto all = [&] {
    for (int i = 0; i < calls; ++i) call(i);
  };
  all();
  all();
  ops().synchronize();
  const std::int64_t id = 0;
  const auto recording = ops().record(all);
  std::vector<double> times;
  for (int round = 0; round < 9; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int again = 0; again < 3; ++again) {
      if (!ops().replay(*recording, {&id, 1}, {}, nullptr)) throw Error("the recording is stale");
    }
    ops().synchronize();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count() / (3 * calls));
  }
  std::nth_element(times.begin(), times.begin() + 4, times.end());
  return times[4];
}

std::vector<std::string> names;

bool is_wanted(const std::string& what) {
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return what.find(name) != std::string::npos;
         });
}

void report(const std::string& what, std::int64_t rows, double us, double bytes, double flops) {
  std::cout << "{\"what\": \"" << what << "\", \"rows\": " << rows << ", \"us\": " << us
            << ", \"gbs\": " << bytes / us * 1e-3 << ", \"tflops\": " << flops / us * 1e-6 << "}"
            << std::endl;
}

struct Size {
  const char* name;
  std::int64_t outputs, inputs;
  int parts;
};

// Enough copies that the second-level cache does not help.
constexpr double kLeastBytes = 3e8;

template <class Pack>
void bench_linear(const Size& size, const std::string& format, double bytes,
                  const std::vector<std::int64_t>& row_counts, Pack pack) {
  if (!is_wanted(format + " " + size.name)) return;
  const int copies = std::clamp(static_cast<int>(kLeastBytes / bytes) + 1, 2, 24);
  std::vector<std::unique_ptr<Weight>> weights;
  for (int i = 0; i < copies; ++i) weights.push_back(pack());
  const double total = static_cast<double>(weights[0]->nbytes());
  for (const std::int64_t rows : row_counts) {
    const Floats x(rows, size.inputs), y(rows, size.outputs);
    const double us = microseconds(copies, [&](int i) {
      if (size.parts == 2) {
        ops().linear_act_mul(x.matrix, *weights[static_cast<std::size_t>(i)], {}, HiddenAct::Silu,
                             y.matrix);
      } else {
        ops().linear(x.matrix, *weights[static_cast<std::size_t>(i)], {}, {&y.matrix, 1},
                     std::nullopt);
      }
    });
    const double flops = 2.0 * static_cast<double>(rows * size.outputs * size.inputs * size.parts);
    report(format + " " + size.name, rows, us, total, flops);
  }
}

// Packs the same bfloat16 matrix again and again; it is made for the first that asks.
auto random_weights(const Size& size) {
  return [size, parts = std::vector<Tensor>()]() mutable {
    if (parts.empty()) {
      parts.assign(static_cast<std::size_t>(size.parts), random_matrix(size.outputs, size.inputs));
    }
    return ops().pack(parts, DataType::BF16, nullptr);
  };
}

void bench_linears(bool quick) {
  const std::vector<Size> sizes = {
      {"1b qkv", 3072, 2048, 1},      {"1b o", 2048, 2048, 1},     {"1b gate_up", 8192, 2048, 2},
      {"1b down", 2048, 8192, 1},     {"8b qkv", 6144, 4096, 1},   {"8b o", 4096, 4096, 1},
      {"8b gate_up", 14336, 4096, 2}, {"8b down", 4096, 14336, 1}, {"8b head", 128256, 4096, 1}};
  for (const Size& s : sizes) {
    const double elements = static_cast<double>(s.outputs * s.inputs * s.parts);
    const std::vector<std::int64_t> rows =
        quick ? std::vector<std::int64_t>{1, 8} : std::vector<std::int64_t>{1, 2, 8, 16, 64};
    bench_linear(s, "bf16", 2 * elements, rows, random_weights(s));
    if (quick || s.name == std::string("8b head")) continue;
    for (const QuantFormat& f :
         {QuantFormat{8, 128, false}, QuantFormat{4, 128, false}, QuantFormat{4, 32, false}}) {
      const RandomRows random(s.outputs, s.inputs, f);
      const std::vector<const QuantizedRows*> sources(static_cast<std::size_t>(s.parts), &random);
      bench_linear(s, concat("int", f.bits, " g", f.group), elements * f.bits / 8,
                   {1, 8, 32, 64, 128},
                   [&] { return ops().pack_quantized(sources, DataType::BF16, false, nullptr); });
    }
  }
}

void bench_large(bool quick) {
  const std::int64_t rows = 2048;
  for (const Size& s : {Size{"8b gate_up", 14336, 4096, 2}, Size{"8b down", 4096, 14336, 1}}) {
    if (quick && s.parts == 1) continue;
    bench_linear(s, "bf16", 1e9, {rows}, random_weights(s));
  }
}

// Decoding or a prompt, over a cache of bfloat16 or float32.
void bench_attention(const std::string& name, std::int64_t sequences, std::int64_t rows,
                     std::int64_t past, std::int64_t heads, std::int64_t kv_heads,
                     std::int64_t head_dim, DataType dtype) {
  if (!is_wanted(name)) return;
  AttentionShape shape{heads, kv_heads, head_dim, 0, 0.1f, dtype, 0};
  const std::size_t bytes = ops().kv_block_bytes(kv_heads, head_dim, dtype);
  const std::int64_t blocks = (past + rows + kKvBlock - 1) / kKvBlock;
  const Floats q(sequences * rows, heads * head_dim),
      k(sequences * (past + rows), kv_heads * head_dim);
  std::vector<std::shared_ptr<Buffer>> memory;
  std::vector<std::vector<std::byte*>> pointers(static_cast<std::size_t>(sequences));
  std::vector<SequenceRows> all, now;
  for (std::int64_t s = 0; s < sequences; ++s) {
    auto& mine = pointers[static_cast<std::size_t>(s)];
    for (std::int64_t b = 0; b < blocks; ++b) {
      memory.push_back(ops().allocate(bytes));
      mine.push_back(memory.back()->data());
    }
    all.push_back({s * (past + rows), past + rows, 0, mine});
    now.push_back({s * rows, rows, past, mine});
  }
  ops().kv_write(k.matrix, k.matrix, all, shape);
  const Floats y(sequences * rows, heads * head_dim);
  std::vector<double> times;
  for (int round = 0; round < 5; ++round) {
    ops().attention(q.matrix, now, shape, y.matrix);
    ops().synchronize();
    const auto start = std::chrono::steady_clock::now();
    constexpr int kCalls = 20;
    for (int i = 0; i < kCalls; ++i) ops().attention(q.matrix, now, shape, y.matrix);
    ops().synchronize();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count() / kCalls);
  }
  std::nth_element(times.begin(), times.begin() + 2, times.end());
  const double pairs = static_cast<double>(sequences * rows) *
                       (static_cast<double>(past) + static_cast<double>(rows) / 2);
  report(name, sequences * rows, times[2],
         static_cast<double>(sequences * blocks) * static_cast<double>(bytes),
         4.0 * pairs * static_cast<double>(heads * head_dim));
}

// From logits on the device to tokens on the host.
void bench_choices() {
  struct Case {
    const char* name;
    Sampling how;
  };
  const Case cases[] = {
      {"argmax 128256 and back", {}},
      {"sample 128256 and back", {}},
      {"sample 128256, top_k 50", {0.8, 50, 1.0, 0.0}},
      {"sample 128256, top_k 50, top_p 0.9", {0.8, 50, 0.9, 0.0}},
      {"sample 128256, top_p 0.9", {0.8, 0, 0.9, 0.0}},
  };
  for (const std::int64_t rows : {1, 64}) {
    const Floats logits(rows, 128256);
    const std::vector<double> numbers(static_cast<std::size_t>(rows), 0.5);
    for (const Case& c : cases) {
      if (!is_wanted(c.name)) continue;
      std::vector<double> times;
      for (int i = 0; i < 50; ++i) {
        const auto start = std::chrono::steady_clock::now();
        const auto choice =
            &c == cases ? ops().argmax(logits.matrix) : ops().sample(logits.matrix, c.how, numbers);
        choice->wait();
        const std::chrono::duration<double, std::micro> took =
            std::chrono::steady_clock::now() - start;
        times.push_back(took.count());
      }
      std::nth_element(times.begin(), times.begin() + 25, times.end());
      report(c.name, rows, times[25], static_cast<double>(rows) * 128256 * 4, 0);
    }
  }
}

void bench_rows() {
  const Floats x(1, 4096), w(1, 4096), y(1, 4096);
  report("rms_norm 4096", 1,
         microseconds(50,
                      [&](int) {
                        ops().rms_norm(x.matrix, w.matrix.data, 1e-5f, y.matrix);
                        ops().submit();
                      }),
         3 * 4096 * 4, 0);
  const Floats gate(2048, 14336), up(2048, 14336);
  report("act_mul 2048 x 14336", 2048,
         microseconds(
             3, [&](int) { ops().act_mul(gate.matrix, up.matrix, HiddenAct::Silu, gate.matrix); }),
         3.0 * 2048 * 14336 * 4, 0);
  // The most that memory gives: a copy, read and written.
  report("copy 2048 x 14336", 2048,
         microseconds(3, [&](int) { ops().copy(gate.matrix, up.matrix); }), 2.0 * 2048 * 14336 * 4,
         0);
}

}  // namespace

int main(int argc, char** argv) {
  names.assign(argv + 1, argv + argc);
  const bool quick = std::erase(names, "quick") > 0;
  try {
    try {
      ops().synchronize();  // its device is this thread's before the library asks for it
      ops().use(cuda::make_cublaslt());
    } catch (const Error& missing) {
      std::cerr << missing.what() << '\n';
    }
    if (is_wanted("rows")) bench_rows();
    bench_choices();
    bench_attention("decode attention bf16, 8b, 2048 keys", 1, 1, 2047, 32, 8, 128, DataType::BF16);
    bench_attention("decode attention bf16, 1b, 300 keys", 1, 1, 300, 32, 8, 64, DataType::BF16);
    bench_attention("decode attention f32, 1b, 300 keys", 1, 1, 300, 32, 8, 64, DataType::F32);
    bench_attention("decode attention bf16, 8b, 64 x 1024 keys", 64, 1, 1023, 32, 8, 128,
                    DataType::BF16);
    bench_attention("prompt attention bf16, 8b", 1, 2048, 0, 32, 8, 128, DataType::BF16);
    bench_attention("prompt attention bf16, 1b", 1, 2048, 0, 32, 8, 64, DataType::BF16);
    bench_attention("prompt attention f32, 1b", 1, 2048, 0, 32, 8, 64, DataType::F32);
    bench_linears(quick);
    bench_large(quick);
  } catch (const std::exception& error) {
    std::cerr << "bench_cuda: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
