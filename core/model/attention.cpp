#include "model/attention.hpp"

#include <array>
#include <cmath>

namespace infinilm {
namespace {

// [T, heads * D] as [T * heads, D].
Matrix per_head(Matrix x, std::int64_t head_dim) {
  return {x.data, x.rows * (x.cols / head_dim), head_dim, head_dim};
}

}  // namespace

Attention::Attention(const LlamaConfig& config, const LayerWeights& weights, int layer)
    : config_(config), weights_(weights), layer_(layer) {
  shape_.heads = static_cast<std::int64_t>(config.num_attention_heads);
  shape_.kv_heads = static_cast<std::int64_t>(config.num_key_value_heads);
  shape_.head_dim = static_cast<std::int64_t>(config.head_dim());
  shape_.window = static_cast<std::int64_t>(config.sliding_window.value_or(0));
  shape_.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape_.head_dim)));
}

AttentionShape Attention::shape_in(const KvLayout& kv) const {
  AttentionShape shape = shape_;
  shape.kv_dtype = kv.dtype;
  shape.kv_offset = static_cast<std::size_t>(layer_) * kv.layer_bytes;
  return shape;
}

void Attention::forward(Step& step, const RopeTables& rope, Activation& h, Activation& x) const {
  Heads heads = project(step, h);
  normalize(step, heads);
  rotate(step, rope, heads);
  step.ops.kv_write(heads.k.view(), heads.v.view(), step.batch.sequences, shape_in(step.batch.kv));
  Activation flat = attend(step, heads);
  step.point(Point::AttnFlatBeforeOProj, layer_, flat, {flat.cols()});
  add_linear(step, flat, weights_.o, Point::AttentionOutput, layer_, x);
}

Attention::Heads Attention::project(Step& step, Activation& h) const {
  const std::int64_t a = shape_.heads, k = shape_.kv_heads, d = shape_.head_dim;
  Heads heads{step.make(a * d), step.make(k * d), step.make(k * d)};
  const std::array<Matrix, 3> outputs = {heads.q.view(), heads.k.view(), heads.v.view()};
  step.ops.last_use(h.view());
  step.ops.linear(h.view(), *weights_.qkv.weight, weights_.qkv.bias_pointers, outputs);
  step.point(Point::QAfterProj, layer_, heads.q, {a * d});
  step.point(Point::KAfterProj, layer_, heads.k, {k * d});
  step.point(Point::VAfterProj, layer_, heads.v, {k * d});
  step.point(Point::QAfterReshape, layer_, heads.q, {a, d});
  step.point(Point::KAfterReshape, layer_, heads.k, {k, d});
  step.point(Point::VAfterReshape, layer_, heads.v, {k, d});
  return heads;
}

void Attention::normalize(Step& step, Heads& heads) const {
  const std::int64_t a = shape_.heads, k = shape_.kv_heads, d = shape_.head_dim;
  if (config_.qk_norm) {
    const auto eps = static_cast<float>(config_.rms_norm_eps);
    const Matrix q_heads = per_head(heads.q.writable(), d);
    const Matrix k_heads = per_head(heads.k.writable(), d);
    step.ops.rms_norm(q_heads, weights_.q_norm.data(), eps, q_heads);
    step.ops.rms_norm(k_heads, weights_.k_norm.data(), eps, k_heads);
  }
  step.point(Point::QBeforeRope, layer_, heads.q, {a, d});
  step.point(Point::KBeforeRope, layer_, heads.k, {k, d});
}

void Attention::rotate(Step& step, const RopeTables& rope, Heads& heads) const {
  const std::int64_t a = shape_.heads, k = shape_.kv_heads, d = shape_.head_dim;
  step.ops.rope(heads.q.writable(), d, rope.cos, rope.sin);
  step.ops.rope(heads.k.writable(), d, rope.cos, rope.sin);
  step.point(Point::QAfterRope, layer_, heads.q, {a, d});
  step.point(Point::KAfterRope, layer_, heads.k, {k, d});
}

Activation Attention::attend(Step& step, Heads& heads) const {
  Activation y = step.make(heads.q.cols());
  if (step.wants(Point::AttentionScores, layer_) || step.wants(Point::AttentionWeights, layer_)) {
    attend_unfused(step, heads.q.view(), y.view());
  } else {
    step.ops.attention(heads.q.view(), step.batch.sequences, shape_in(step.batch.kv), y.view());
  }
  return y;
}

// Sequences whose scores lie together as [A, rows, keys], from `offset` on: each one of a rectangular batch by
// itself, so that the whole is [batch, A, tokens, S]; all of them otherwise.
struct Attention::ScoreBlock {
  std::vector<SequenceRows> sequences;  // rows counted from row_begin
  std::int64_t row_begin;
  std::int64_t rows;
  std::int64_t offset;  // in elements
};

std::vector<Attention::ScoreBlock> Attention::score_blocks(const Step& step) const {
  const Batch& batch = step.batch;
  if (!batch.is_rectangular()) return {{batch.sequences, 0, batch.rows(), 0}};
  std::vector<ScoreBlock> blocks;
  for (SequenceRows s : batch.sequences) {
    const std::int64_t begin = s.row_begin;
    s.row_begin = 0;
    blocks.push_back({{s}, begin, s.rows, begin * shape_.heads * batch.longest()});
  }
  return blocks;
}

void Attention::attend_unfused(Step& step, const Matrix& q, Matrix y) const {
  const Batch& batch = step.batch;
  const AttentionShape shape = shape_in(batch.kv);
  const std::int64_t keys = batch.longest();
  Shape leading = {shape_.heads, batch.rows()};
  if (batch.is_rectangular()) leading = {batch.leading[0], shape_.heads, batch.leading[1]};
  Activation scores = step.make(shape_.heads * batch.rows(), keys);
  const std::vector<ScoreBlock> blocks = score_blocks(step);
  for (const ScoreBlock& b : blocks) {
    step.ops.attention_scores(q.slice(b.row_begin, b.rows), b.sequences, shape,
                              scores.view().data + b.offset, keys);
  }
  if (step.wants(Point::AttentionScores, layer_)) {
    step.show(Point::AttentionScores, layer_, scores, leading, {keys});
  }
  step.ops.softmax(scores.writable());
  if (step.wants(Point::AttentionWeights, layer_)) {
    step.show(Point::AttentionWeights, layer_, scores, leading, {keys});
  }
  for (const ScoreBlock& b : blocks) {
    step.ops.attention_mix(scores.view().data + b.offset, keys, b.sequences, shape,
                           y.slice(b.row_begin, b.rows));
  }
}

}  // namespace infinilm
