#include "infinilm/operations.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "infinilm/error.hpp"
#include "ops/ops.hpp"

namespace infinilm::operations {
namespace {

// A float32 tensor of the expected number of dimensions, made contiguous on the device.
Tensor activations(Ops& ops, std::string_view name, const Tensor& t, std::int64_t ndim) {
  check(t.dtype() == DataType::F32, name, ": expected float32, found ", name_of(t.dtype()));
  check(t.ndim() == ndim, name, ": expected ", ndim, " dimensions, found shape ",
        str_of(t.shape()));
  return t.contiguous().to(ops.device());
}

// The same in memory of its own.
Tensor own_activations(Ops& ops, std::string_view name, const Tensor& t, std::int64_t ndim) {
  const Tensor there = activations(ops, name, t, ndim);
  return there.data() == t.data() ? there.clone() : there;
}

// Not initialised, on the device.
Tensor empty_on(Ops& ops, Shape shape) {
  if (ops.device() == Device()) return Tensor::empty(std::move(shape));
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(numel_of(shape), 1));
  return Tensor(ops.allocate(count * sizeof(float)), DataType::F32, std::move(shape));
}

void check_shape(std::string_view name, const Tensor& t, const Shape& expected) {
  check(t.shape() == expected, name, ": expected shape ", str_of(expected), ", found ",
        str_of(t.shape()));
}

Tensor weight_matrix(std::string_view name, const Tensor& t) {
  const bool known =
      t.dtype() == DataType::F32 || t.dtype() == DataType::F16 || t.dtype() == DataType::BF16;
  check(known, name, ": expected float32, float16 or bfloat16, found ", name_of(t.dtype()));
  check(t.ndim() == 2, name, ": expected 2 dimensions, found shape ", str_of(t.shape()));
  const Tensor matrix = t.contiguous().to(Device());
  static_cast<void>(matrix.data());  // waits, if at all, here: threads that pack cannot throw
  return matrix;
}

const float* floats(const Tensor& t) { return reinterpret_cast<const float*>(t.data()); }

// What was asked for reads memory that is about to be dropped: it must be on its way by then.
template <class Result>
Result submitted(Ops& ops, Result result) {
  ops.submit();
  return result;
}

// A tensor's memory as rows of its last `cols` elements. Operations do not write to what they only read.
Matrix matrix(const Tensor& t, std::int64_t rows, std::int64_t cols) {
  return {reinterpret_cast<float*>(t.data()), rows, cols, cols};
}
Matrix matrix(const Tensor& t) { return matrix(t, t.shape()[0], t.shape()[1]); }

// One float32 vector for each part, or none at all; the tensors stay alive as long as this.
class Biases {
 public:
  Biases(Ops& ops, const std::vector<Tensor>& bias, const Weight& weight) {
    check(bias.empty() || bias.size() == weight.parts(), "bias: expected none or ", weight.parts(),
          ", found ", bias.size());
    for (std::size_t p = 0; p < bias.size(); ++p) {
      tensors_.push_back(activations(ops, "bias", bias[p], 1));
      check_shape("bias", bias[p], {weight.outputs(p)});
      pointers_.push_back(floats(tensors_.back()));
    }
  }
  std::span<const float* const> span() const { return pointers_; }

 private:
  std::vector<Tensor> tensors_;
  std::vector<const float*> pointers_;
};

std::unique_ptr<Weight> pack_quantized(Ops& ops, const std::vector<Tensor>& parts, DataType compute,
                                       const Quantization& quantization) {
  const QuantFormat format = format_of(quantization, parts.front().shape()[1]);
  std::vector<std::unique_ptr<QuantizedRows>> rows;
  std::vector<const QuantizedRows*> pointers;
  for (const Tensor& part : parts) {
    rows.push_back(quantize(part, format));
    pointers.push_back(rows.back().get());
  }
  return ops.pack_quantized(pointers, compute, quantization.int8_activations);
}

Tensor checked_input(Ops& ops, const Tensor& x, const Weight& weight) {
  Tensor input = activations(ops, "x", x, 2);
  check(x.shape()[1] == weight.inputs(), "x: expected ", weight.inputs(), " columns, found shape ",
        str_of(x.shape()));
  return input;
}

}  // namespace

Tensor embed(const TokenIds& ids, const Tensor& table, const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor rows = weight_matrix("table", table);
  for (const std::int64_t id : ids) {
    check<IndexError>(id >= 0 && id < table.shape()[0], "ids: expected ids from 0 to ",
                      table.shape()[0] - 1, ", found ", id);
  }
  const auto packed = ops->pack(std::span(&rows, 1), DataType::F32);
  const Tensor y = empty_on(*ops, {static_cast<std::int64_t>(ids.size()), table.shape()[1]});
  ops->embed(ids, *packed, matrix(y));
  return submitted(*ops, y);
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor input = activations(*ops, "x", x, 2);
  const Tensor w = activations(*ops, "weight", weight, 1);
  check_shape("weight", weight, {x.shape()[1]});
  const Tensor y = empty_on(*ops, x.shape());
  ops->rms_norm(matrix(input), floats(w), static_cast<float>(eps), matrix(y));
  return submitted(*ops, y);
}

PackedLinear::PackedLinear(const std::vector<Tensor>& weights, DataType compute,
                           const std::string& device, const Quantization& quantization)
    : ops_(ops_for(Device(device))) {
  check(!weights.empty(), "weights: expected at least one matrix, found none");
  check(ops_->can_compute(compute), "compute: expected float32 or bfloat16, found ",
        name_of(compute));
  check(quantization || !quantization.int8_activations,
        "quantization: expected \"int8\" or \"int4\" beside int8 activations, found none");
  std::vector<Tensor> parts;
  for (const Tensor& w : weights) {
    parts.push_back(weight_matrix("weights", w));
    check(w.dtype() == weights[0].dtype(), "weights: expected one dtype, found ",
          name_of(weights[0].dtype()), " and ", name_of(w.dtype()));
    check(w.shape()[1] == weights[0].shape()[1], "weights: expected matrices of ",
          weights[0].shape()[1], " columns, found shape ", str_of(w.shape()));
  }
  weight_ = quantization ? pack_quantized(*ops_, parts, compute, quantization)
                         : ops_->pack(parts, compute);
}

std::vector<Tensor> PackedLinear::apply(const Tensor& x, const std::vector<Tensor>& bias) const {
  const Tensor input = checked_input(*ops_, x, *weight_);
  const Biases biases(*ops_, bias, *weight_);
  std::vector<Tensor> y;
  std::vector<Matrix> outputs;
  for (std::size_t p = 0; p < weight_->parts(); ++p) {
    y.push_back(empty_on(*ops_, {x.shape()[0], weight_->outputs(p)}));
    outputs.push_back(matrix(y.back()));
  }
  ops_->linear(matrix(input), *weight_, biases.span(), outputs);
  return submitted(*ops_, y);
}

Tensor PackedLinear::apply_residual(const Tensor& x, const std::vector<Tensor>& bias,
                                    const Tensor& residual) const {
  const Tensor input = checked_input(*ops_, x, *weight_);
  check(weight_->parts() == 1, "expected a weight of one part, found ", weight_->parts());
  const Biases biases(*ops_, bias, *weight_);
  const Tensor before = activations(*ops_, "residual", residual, 2);
  check_shape("residual", residual, {x.shape()[0], weight_->outputs(0)});
  const Tensor y = empty_on(*ops_, residual.shape());
  const Matrix output = matrix(y);
  ops_->linear(matrix(input), *weight_, biases.span(), std::span(&output, 1), matrix(before));
  return submitted(*ops_, y);
}

Tensor PackedLinear::apply_act_mul(const Tensor& x, const std::vector<Tensor>& bias,
                                   const std::string& act) const {
  const Tensor input = checked_input(*ops_, x, *weight_);
  check(weight_->parts() == 2 && weight_->outputs(0) == weight_->outputs(1),
        "expected a weight of two parts with as many outputs each, found ", weight_->parts(),
        " parts");
  const Biases biases(*ops_, bias, *weight_);
  const Tensor y = empty_on(*ops_, {x.shape()[0], weight_->outputs(0)});
  ops_->linear_act_mul(matrix(input), *weight_, biases.span(), parse_hidden_act(act), matrix(y));
  return submitted(*ops_, y);
}

Tensor PackedLinear::unpack(std::size_t part) const {
  check<IndexError>(part < weight_->parts(), "part: expected one of ", weight_->parts(), ", found ",
                    part);
  return ops_->unpack(*weight_, part);
}

std::size_t PackedLinear::nbytes() const { return weight_->nbytes(); }

Tensor act_mul(const Tensor& gate, const Tensor& up, const std::string& act,
               const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor g = activations(*ops, "gate", gate, 2), u = activations(*ops, "up", up, 2);
  check_shape("up", up, gate.shape());
  const Tensor y = empty_on(*ops, gate.shape());
  ops->act_mul(matrix(g), matrix(u), parse_hidden_act(act), matrix(y));
  return submitted(*ops, y);
}

Tensor add(const Tensor& x, const Tensor& y, const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor input = activations(*ops, "x", x, 2);
  Tensor sum = own_activations(*ops, "y", y, 2);
  check_shape("y", y, x.shape());
  ops->add(matrix(input), matrix(sum));
  return submitted(*ops, sum);
}

Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, const std::string& device) {
  const auto ops = ops_for(Device(device));
  Tensor rotated = own_activations(*ops, "x", x, 3);
  const Tensor c = activations(*ops, "cos", cos, 2), s = activations(*ops, "sin", sin, 2);
  const std::int64_t rows = x.shape()[0], heads = x.shape()[1], head_dim = x.shape()[2];
  check(head_dim % 2 == 0, "x: expected an even head_dim, found shape ", str_of(x.shape()));
  check_shape("cos", cos, {rows, head_dim / 2});
  check_shape("sin", sin, {rows, head_dim / 2});
  if (rotated.numel() == 0) return rotated;
  ops->rope(matrix(rotated, rows, heads * head_dim), head_dim, matrix(c), matrix(s));
  return submitted(*ops, rotated);
}

Tensor softmax(const Tensor& x, const std::string& device) {
  const auto ops = ops_for(Device(device));
  Tensor y = own_activations(*ops, "x", x, 2);
  ops->softmax(matrix(y));
  return submitted(*ops, y);
}

namespace {

// The sequences of an attention call with a cache of their own.
class CachedKeys {
 public:
  CachedKeys(Ops& ops, const Tensor& q, const Tensor& k, const Tensor& v,
             const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& lengths,
             std::int64_t window, double scale, DataType dtype)
      : ops_(ops) {
    check_shapes(q, k, v, window);
    check_lengths(q, k, rows, lengths);
    const std::int64_t kv_heads = k.shape()[1], head_dim = k.shape()[2];
    shape_ = {q.shape()[1], kv_heads, head_dim, window, static_cast<float>(scale), dtype, 0};
    block_bytes_ = ops_.kv_block_bytes(kv_heads, head_dim, dtype);
    std::int64_t tokens = 0, queries = 0;
    blocks_.resize(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      make_blocks(i, lengths[i]);
      cached_.push_back({tokens, lengths[i], 0, blocks_[i]});
      queries_.push_back({queries, rows[i], lengths[i] - rows[i], blocks_[i]});
      tokens += lengths[i];
      queries += rows[i];
    }
    const std::int64_t columns = kv_heads * head_dim;
    ops_.kv_write(matrix(k, tokens, columns), matrix(v, tokens, columns), cached_, shape_);
  }

  const AttentionShape& shape() const noexcept { return shape_; }
  std::span<const SequenceRows> queries() const noexcept { return queries_; }

 private:
  static void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t window) {
    check_shape("v", v, k.shape());
    check(k.shape()[1] > 0 && q.shape()[1] > 0 && q.shape()[1] % k.shape()[1] == 0,
          "q: expected a multiple of k's ", k.shape()[1], " heads, found shape ",
          str_of(q.shape()));
    check(q.shape()[2] == k.shape()[2] && q.shape()[2] > 0, "q: expected a head_dim of ",
          k.shape()[2], ", found shape ", str_of(q.shape()));
    check(window >= 0, "window: expected 0 or more, found ", window);
  }

  static void check_lengths(const Tensor& q, const Tensor& k, const std::vector<std::int64_t>& rows,
                            const std::vector<std::int64_t>& lengths) {
    check(rows.size() == lengths.size(), "rows: expected ", lengths.size(), " numbers, found ",
          rows.size());
    std::int64_t queries = 0, tokens = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      check(rows[i] >= 0 && rows[i] <= lengths[i], "rows: expected from 0 to ", lengths[i],
            " for sequence ", i, ", found ", rows[i]);
      check(lengths[i] <= k.shape()[0] - tokens, "lengths: expected a sum of ", k.shape()[0],
            ", found more");
      queries += rows[i];
      tokens += lengths[i];
    }
    check(tokens == k.shape()[0], "lengths: expected a sum of ", k.shape()[0], ", found ", tokens);
    check(queries == q.shape()[0], "rows: expected a sum of ", q.shape()[0], ", found ", queries);
  }

  // Full of NaN: an operation that reads what was never written shows.
  void make_blocks(std::size_t sequence, std::int64_t length) {
    const std::vector<unsigned char> nan(block_bytes_, 0xff);
    for (std::int64_t begin = 0; begin < length; begin += kKvBlock) {
      memory_.push_back(ops_.allocate(block_bytes_));
      ops_.upload(nan.data(), memory_.back()->data(), block_bytes_);
      blocks_[sequence].push_back(memory_.back()->data());
    }
  }

  Ops& ops_;
  AttentionShape shape_;
  std::size_t block_bytes_ = 0;
  std::vector<std::shared_ptr<Buffer>> memory_;
  std::vector<std::vector<std::byte*>> blocks_;
  std::vector<SequenceRows> cached_;
  std::vector<SequenceRows> queries_;
};

std::int64_t longest_of(const std::vector<std::int64_t>& lengths) {
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

Tensor scores_of(Ops& ops, const Tensor& q, const CachedKeys& cache, std::int64_t keys) {
  const std::int64_t rows = q.shape()[0], heads = q.shape()[1];
  const Tensor scores = empty_on(ops, {heads, rows, keys});
  ops.attention_scores(matrix(q, rows, heads * q.shape()[2]), cache.queries(), cache.shape(),
                       reinterpret_cast<float*>(scores.data()), keys);
  return submitted(ops, scores);
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& lengths,
                 std::int64_t window, double scale, bool fused, DataType kv_dtype,
                 const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor qs = activations(*ops, "q", q, 3), ks = activations(*ops, "k", k, 3),
               vs = activations(*ops, "v", v, 3);
  const CachedKeys cache(*ops, qs, ks, vs, rows, lengths, window, scale, kv_dtype);
  const std::int64_t tokens = q.shape()[0], columns = q.shape()[1] * q.shape()[2];
  const Tensor y = empty_on(*ops, q.shape());
  if (fused) {
    ops->attention(matrix(qs, tokens, columns), cache.queries(), cache.shape(),
                   matrix(y, tokens, columns));
    return submitted(*ops, y);
  }
  const std::int64_t keys = longest_of(lengths);
  const Tensor weights = scores_of(*ops, qs, cache, keys);
  ops->softmax(matrix(weights, q.shape()[1] * tokens, keys));
  ops->attention_mix(floats(weights), keys, cache.queries(), cache.shape(),
                     matrix(y, tokens, columns));
  return submitted(*ops, y);
}

Tensor attention_scores(const Tensor& q, const Tensor& k, const std::vector<std::int64_t>& rows,
                        const std::vector<std::int64_t>& lengths, std::int64_t window, double scale,
                        DataType kv_dtype, const std::string& device) {
  const auto ops = ops_for(Device(device));
  const Tensor qs = activations(*ops, "q", q, 3), ks = activations(*ops, "k", k, 3);
  const CachedKeys cache(*ops, qs, ks, ks, rows, lengths, window, scale, kv_dtype);
  return scores_of(*ops, qs, cache, longest_of(lengths));
}

}  // namespace infinilm::operations
