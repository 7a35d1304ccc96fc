#include "cuda/tests/attention_cases.hpp"

#include "cuda/tests/weights.hpp"
#include "infinilm/error.hpp"

namespace cuda_tests {
namespace {

// x by a matrix of 24 outputs.
Floats multiplied(Ops& ops, Matrix x) {
  constexpr std::int64_t kOutputs = 24;
  const Tensor w =
      stored(rounded(numbers(kOutputs * x.cols, 6), DataType::BF16), DataType::BF16, x.cols);
  const auto weight = ops.pack({&w, 1}, DataType::BF16, nullptr);
  const Numbers y(ops, Floats(static_cast<std::size_t>(x.rows * kOutputs), 0.0f), kOutputs);
  const Matrix out = y.matrix();
  ops.last_use(x);
  ops.linear(x, *weight, {}, {&out, 1});
  return y.read();
}

}  // namespace

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
  // Before what is put off for attention, which whoever uploads anything has done first.
  const Numbers y(ops, Floats(static_cast<std::size_t>(total * q_cols), 0.0f), q_cols);
  if (c.head_dim % 2 == 0) {
    ops.rope(q.matrix(), c.head_dim, cos.matrix(), sin.matrix());
    ops.rope(k.matrix(), c.head_dim, cos.matrix(), sin.matrix());
  }
  ops.kv_write(k.matrix(), v.matrix(), cache.now(), cache.shape());
  if (way == Way::Stored) q.read();
  if (way != Way::Steps) {
    ops.attention(q.matrix(), cache.now(), cache.shape(), y.matrix());
    if (way == Way::Seen) y.read();
    const bool is_result = way == Way::Fused || way == Way::Stored;
    return is_result ? y.read() : multiplied(ops, y.matrix());
  }
  std::int64_t keys = 3;  // more than the longest has
  for (std::size_t i = 0; i < c.rows.size(); ++i) keys = std::max(keys, c.rows[i] + c.past[i] + 3);
  const Numbers scores(ops, Floats(static_cast<std::size_t>(c.heads * total * keys), 0.0f), keys);
  ops.attention_scores(q.matrix(), cache.now(), cache.shape(), scores.data(), keys);
  ops.softmax(scores.matrix());
  ops.attention_mix(scores.data(), keys, cache.now(), cache.shape(), y.matrix());
  return y.read();
}

namespace {

DataType expected_cache(const AttentionCase& c) {
  return c.dtype == DataType::F16 ? DataType::F32 : c.dtype;
}

std::string text_of(const AttentionCase& c) {
  return concat("attention ", c.heads, "/", c.kv_heads, " x ", c.head_dim, ", window ", c.window,
                ", ", name_of(c.dtype), ", ", c.rows.size(), " sequences");
}

}  // namespace

void check_fused_attention(const AttentionCase& c) {
  // On tensor cores queries and weights are rounded to the cache's type.
  const float fused = c.dtype == DataType::BF16 ? 2e-2f : c.dtype == DataType::F16 ? 3e-3f : 1e-5f;
  const Floats expected = attend(host(), c, expected_cache(c), Way::Fused);
  CHECK(is_close(attend(device(), c, c.dtype, Way::Fused), expected, fused, text_of(c)));
  CHECK(is_close(attend(device(), c, c.dtype, Way::Stored), expected, fused,
                 text_of(c) + ", of tokens in the cache"));
}

void check_attention(const AttentionCase& c) {
  check_fused_attention(c);
  CHECK(is_close(attend(device(), c, c.dtype, Way::Steps),
                 attend(host(), c, expected_cache(c), Way::Steps), 1e-5f,
                 text_of(c) + ", in steps"));
}

}  // namespace cuda_tests
