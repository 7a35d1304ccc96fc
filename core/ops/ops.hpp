// The one interface between model/ and the devices: coarse, stateless operations on views.
//
// A device's Ops owns its resources (a thread pool; a stream and library handles) and the layouts of what it
// packs. Every operation checks nothing but what it alone can know: shapes are the caller's business and are
// asserted in debug builds. Results do not depend on how rows are split over calls,
// but for quantised weights, where few rows may be multiplied in another way than many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/device_memory.hpp"
#include "infinilm/tensor.hpp"
#include "ops/choice.hpp"
#include "ops/device_limits.hpp"
#include "ops/sampling.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm {

// A row-major matrix of float32, `stride` elements from row to row (>= cols). Does not own.
struct Matrix {
  float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  float* row(std::int64_t r) const noexcept { return data + r * stride; }
  Matrix slice(std::int64_t first, std::int64_t count) const noexcept {
    return {row(first), count, cols, stride};
  }
  bool operator==(const Matrix&) const = default;
};

enum class HiddenAct { Silu, Gelu, GeluTanh, Relu };
// "silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"; ValueError for another name.
HiddenAct parse_hidden_act(std::string_view name);

// Matrices [outputs, inputs] in a device's own layout, several of them stacked if they share their input (q, k, v; gate,
// up). Each part has its own output.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual std::int64_t inputs() const = 0;
  virtual std::size_t parts() const = 0;
  virtual std::int64_t outputs(std::size_t part) const = 0;
  virtual DataType dtype() const = 0;  // of the elements as they are kept; F32 of quantised ones
  virtual const QuantFormat& quant() const = 0;  // false if it is not quantised
  // As of QuantizedRows: which input stands in each place; empty if they are in order.
  virtual std::span<const std::int32_t> input_order() const { return {}; }
  virtual std::size_t nbytes() const = 0;
};

// One sequence of a step. Its rows of [T, …] are [row_begin, row_begin + rows), at positions past, past + 1, …
struct SequenceRows {
  std::int64_t row_begin = 0;
  std::int64_t rows = 0;
  std::int64_t past = 0;
  // Its blocks of the cache, kKvBlock tokens each, for every layer: enough for past + rows tokens.
  std::span<std::byte* const> blocks;
};

inline constexpr std::int64_t kKvBlock = 64;

// One layer's attention over the sequences of a step. A query at position p sees the keys of its own
// sequence at positions j with p - window < j <= p (window 0: all j <= p).
struct AttentionShape {
  std::int64_t heads = 0;     // A
  std::int64_t kv_heads = 0;  // K; query head h reads key head h / (A / K)
  std::int64_t head_dim = 0;  // D
  std::int64_t window = 0;
  float scale = 1.0f;                 // D^-0.5
  DataType kv_dtype = DataType::F32;  // of keys and values in the cache
  std::size_t kv_offset = 0;  // where this layer begins within a block: layer * kv_block_bytes()

  bool operator==(const AttentionShape&) const = default;
};

// Hears that the rows [begin, end) of a part have been packed and are not read again; on the calling thread.
using RowsPacked = std::function<void(std::size_t part, std::int64_t begin, std::int64_t end)>;
// Hears that the bytes [begin, end) of a part have been packed and are not read again; on the calling thread.
using PartPacked = std::function<void(std::size_t part, std::size_t begin, std::size_t end)>;

// One per device, shared by all models and threads. Pointers and matrices are the device's own memory; ids, sequences and
// what says so are the host's.
class Ops : public DeviceMemory {
 public:
  // What would make the device faster, for a warning; empty: nothing that is known.
  virtual std::string advice() const { return {}; }
  // Whether matrix products can be computed in this type.
  virtual bool can_compute(DataType dtype) const = 0;

  // Takes matrices (F32, F16 or BF16, contiguous, not necessarily aligned) with a common number of columns
  // into the device's layout. `compute` F32 keeps the stored type, which is then one for all (it is widened exactly in the
  // kernel); BF16 rounds to nearest even. `packed` may be null, and throw.
  virtual std::unique_ptr<Weight> pack(std::span<const Tensor> parts, DataType compute,
                                       const PartPacked& packed = nullptr) = 0;
  // The same of quantised matrices, of one format and one order of inputs. What they stand for is not rounded again before it is
  // multiplied, but to 16-bit floats where the device multiplies so. With `compute` F32, x counts in float32 or as integers of 24
  // bits, with BF16 rounded to bfloat16, or as integers or floats of 16 bits, with `int8_activations` always as integers of 8
  // bits: symmetric, with a scale for each 128 columns or fewer.
  virtual std::unique_ptr<Weight> pack_quantized(std::span<const QuantizedRows* const> parts,
                                                 DataType compute, bool int8_activations,
                                                 const RowsPacked& packed = nullptr) = 0;
  // The nbytes() of a weight whose parts have so many outputs: one that pack() keeps in `kept`, or of `quant` if that is one.
  virtual std::size_t packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                                   DataType kept, const QuantFormat& quant) const = 0;
  // The rows of one part again, as they are kept; of a quantised weight what they stand for, F32.
  virtual Tensor unpack(const Weight& weight, std::size_t part) = 0;
  // ValueError if the weight is not quantised.
  virtual QuantizedMatrix unpack_quantized(const Weight& weight, std::size_t part) = 0;

  // y[t] = table[ids[t]]; ids are in range.
  virtual void embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) = 0;
  // y = x / sqrt(mean(x^2) + eps) * w, row by row; y may be x.
  virtual void rms_norm(Matrix x, const float* w, float eps, Matrix y) = 0;
  // y[p] = x W_p^T + bias[p] for every part p; with `residual`, which may be y[0], that is added to y[0] (one part, no second
  // rounding: bit-equal to linear and add). `bias` is empty or has one entry for each part (null for none).
  // With a weight packed for BF16, x is rounded to bfloat16 first; sums are float32.
  virtual void linear(Matrix x, const Weight& w, std::span<const float* const> bias,
                      std::span<const Matrix> y,
                      const std::optional<Matrix>& residual = std::nullopt) = 0;
  // y = act(x W_0^T + b_0) * (x W_1^T + b_1): on the CPU bit-equal to linear and act_mul.
  virtual void linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                              HiddenAct act, Matrix y) = 0;
  // The next operation, a product of x, is the last that reads x before it is written again: a device that has put off what x
  // comes from need not keep it.
  virtual void last_use(Matrix x) { static_cast<void>(x); }
  // Lets go of memory that was kept for later operations.
  virtual void give_back() {}
  // y = act(gate) * up; y may be either of them.
  virtual void act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) = 0;
  // y += x
  virtual void add(Matrix x, Matrix y) = 0;
  // Rotates each head of each row in place, halves paired as in HF's rotate_half:
  // (a, b) -> (a cos - b sin, b cos + a sin) for a = x[i], b = x[i + D/2]. cos, sin: [rows, D/2], which were uploaded.
  virtual void rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) = 0;

  // Bytes of one layer's keys and values of a block. ValueError for a dtype that no cache here has: F32 is exact, BF16 rounds
  // to nearest even, I8 to 255 steps of a scale for each token and head (its largest magnitude / 127).
  virtual std::size_t kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                                     DataType dtype) const = 0;
  // Writes k and v [T, K * D] at the positions of the sequences.
  virtual void kv_write(Matrix k, Matrix v, std::span<const SequenceRows> sequences,
                        const AttentionShape& shape) = 0;
  // y = softmax(scale q k^T, masked) v, [T, A * D] each; keys and values of this step are written already. What q and the k of
  // kv_write hold afterwards is up to the device.
  virtual void attention(Matrix q, std::span<const SequenceRows> sequences,
                         const AttentionShape& shape, Matrix y) = 0;
  // The same step by step. scores: A consecutive matrices [T, keys] (stride keys): entry (h, t, j) is the scaled product, -inf
  // where masked or past the end of the sequence.
  virtual void attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                                const AttentionShape& shape, float* scores, std::int64_t keys) = 0;
  // Softmax of every row in place; a row of -inf only becomes zeros.
  virtual void softmax(Matrix x) = 0;
  virtual void attention_mix(const float* weights, std::int64_t keys,
                             std::span<const SequenceRows> sequences, const AttentionShape& shape,
                             Matrix y) = 0;

  virtual void copy(Matrix from, Matrix to) = 0;
  // Each of `from` to its place in `to`; none of these overlaps another.
  virtual void copy_each(std::span<const Matrix> from, std::span<const Matrix> to) {
    for (std::size_t i = 0; i < from.size(); ++i) copy(from[i], to[i]);
  }
  // Of rows of logits, whose memory may be let go on return. Of each row the first of the largest.
  virtual std::unique_ptr<Choice> argmax(Matrix x) = 0;
  // Of row r the column in which the probabilities of the columns up to it exceed numbers[r] in [0, 1). Null, and nothing done: the
  // caller has to do it from a copy of x.
  virtual std::unique_ptr<Choice> sample(Matrix x, const Sampling& how,
                                         std::span<const double> numbers) {
    static_cast<void>(x), static_cast<void>(how), static_cast<void>(numbers);
    return nullptr;
  }
  // x[u.row, u.id] = penalized(x[u.row, u.id], u.generated, how) for each u of `used`, which names no place twice.
  virtual void penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) = 0;
  // found[r] = ln softmax(x[r])[columns[r]], the host's, and there on return; NaN where row r is no distribution.
  virtual void log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                                 std::span<float> found) = 0;

  // For benchmarks.
  virtual std::unique_ptr<DeviceLimits> limits(std::size_t nbytes) = 0;

  // Host to device, as upload, for the step that begins next: lets a device send it over with ids and sequences. `to` stays alive
  // until then, and `host` may change on return.
  virtual void upload_for_step(const void* host, void* to, std::size_t nbytes) {
    upload(host, to, nbytes);
  }
  // What the next operations will be given as `ids` and `sequences`: lets a device send them over in one piece.
  virtual void begin_step(std::span<const std::int64_t> ids,
                          std::span<const SequenceRows> sequences) {
    static_cast<void>(ids), static_cast<void>(sequences);
  }
  // A sequence of operations that can be run again at less cost than asking for each. All memory that `body` used must stay
  // alive, and be used by nobody else, as long as the recording; but blocks of the cache may be others.
  class Recording {
   public:
    virtual ~Recording() = default;
  };
  virtual bool can_record() const { return false; }
  // Notes the operations that `body` asks for instead of running them. Null if they need memory that is not there: it will be once they
  // have run.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& body) {
    static_cast<void>(body);
    return nullptr;
  }
  // Runs them for these ids and sequences, as many as there were when it was recorded. If `chosen` is not null, the ids are the columns
  // that it finds, by now or later, and `ids` only says how many. False, and nothing was run: the sequences have outgrown the
  // recording, or there are more ids than can be taken from there.
  virtual bool replay(Recording& recording, std::span<const std::int64_t> ids,
                      std::span<const SequenceRows> sequences, Choice* chosen) {
    static_cast<void>(recording), static_cast<void>(ids), static_cast<void>(sequences);
    static_cast<void>(chosen);
    return false;
  }
};

// The Ops of a device, made on first use and shared. Throws Error where there is no such device.
std::shared_ptr<Ops> ops_for(const Device& device);

}  // namespace infinilm
