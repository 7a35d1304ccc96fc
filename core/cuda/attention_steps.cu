// Attention step by step, for those who want to see scores and weights. Scores and weights: [A][T][keys].
#include <algorithm>

#include "cuda/kv.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 256;

struct Steps {
  const float* q;
  float* y;
  std::int64_t stride;
  int rows, heads, group, window;
  float scale;
  std::int64_t keys;
  Sequences sequences;
  KvView kv;
};

// A thread a key; block (keys, token, head).
__global__ void __launch_bounds__(kThreads) scores_kernel(Steps s, float* scores, int row_begin) {
  let_next_start();
  wait_for_previous();
  const auto key = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int row = row_begin + static_cast<int>(blockIdx.y), head = static_cast<int>(blockIdx.z);
  if (key >= s.keys) return;
  const int index = sequence_of(s.sequences, row);
  if (index < 0) return;
  const SequenceInfo sequence = s.sequences.info[index];
  const int position = sequence.past + row - sequence.row_begin;
  float score = kMinusInfinity;
  if (key <= position && key >= first_key(position, s.window)) {
    const std::byte* block = s.sequences.blocks[sequence.first_block + key / kKeys];
    const std::byte* keys = keys_of(s.kv, block, head / s.group);
    const float* q = s.q + row * s.stride + head * s.kv.head_dim;
    const int token = static_cast<int>(key % kKeys);
    float sum = 0.0f;
    for (int d = 0; d < s.kv.head_dim; ++d) {
      sum = fmaf(q[d], element_of(s.kv, keys, token, d), sum);
    }
    if (s.kv.dtype == DataType::I8) sum *= scale_of(s.kv, keys, token);
    score = sum * s.scale;
  }
  scores[(static_cast<std::int64_t>(head) * s.rows + row) * s.keys + key] = score;
}

// A thread a column; block (columns, token, head). Weights of keys that the sequence does not have count for nothing.
__global__ void __launch_bounds__(kThreads)
    mix_kernel(Steps s, const float* weights, int row_begin) {
  let_next_start();
  wait_for_previous();
  const int d = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int row = row_begin + static_cast<int>(blockIdx.y), head = static_cast<int>(blockIdx.z);
  if (d >= s.kv.head_dim) return;
  const int index = sequence_of(s.sequences, row);
  if (index < 0) return;
  const SequenceInfo sequence = s.sequences.info[index];
  const int length = sequence.past + sequence.rows;
  const float* w = weights + (static_cast<std::int64_t>(head) * s.rows + row) * s.keys;
  float sum = 0.0f;
  for (int key = 0; key < length; ++key) {
    const std::byte* block = s.sequences.blocks[sequence.first_block + key / kKeys];
    const std::byte* values = values_of(s.kv, block, head / s.group);
    float value = element_of(s.kv, values, key % kKeys, d);
    if (s.kv.dtype == DataType::I8) value *= scale_of(s.kv, values, key % kKeys);
    sum = fmaf(w[key], value, sum);
  }
  s.y[row * s.stride + head * s.kv.head_dim + d] = sum;
}

Steps steps_of(Matrix x, const Sequences& sequences, const AttentionShape& shape,
               std::int64_t keys) {
  Steps s{};
  s.q = x.data;
  s.y = x.data;
  s.stride = x.stride;
  s.rows = static_cast<int>(x.rows);
  s.heads = static_cast<int>(shape.heads);
  s.group = static_cast<int>(shape.heads / shape.kv_heads);
  s.window = static_cast<int>(shape.window);
  s.scale = shape.scale;
  s.keys = keys;
  s.sequences = sequences;
  s.kv = kv_view(shape);
  return s;
}

// Calls launch(grid, first row) for as many rows as a grid can have.
template <class Launch>
void for_grids(std::int64_t columns, std::int64_t rows, int heads, Launch launch) {
  constexpr std::int64_t kMostRows = 65535;
  const auto blocks = static_cast<unsigned>((columns + kThreads - 1) / kThreads);
  for (std::int64_t first = 0; first < rows; first += kMostRows) {
    launch(dim3(blocks, static_cast<unsigned>(std::min(kMostRows, rows - first)),
                static_cast<unsigned>(heads)),
           static_cast<int>(first));
  }
}

}  // namespace

void attention_scores(Context& context, Matrix q, const Sequences& sequences,
                      const AttentionShape& shape, float* scores, std::int64_t keys) {
  const Steps s = steps_of(q, sequences, shape, keys);
  for_grids(keys, q.rows, s.heads, [&](dim3 grid, int first) {
    context.launch(scores_kernel, grid, kThreads, 0, s, scores, first);
  });
}

void attention_mix(Context& context, const float* weights, std::int64_t keys,
                   const Sequences& sequences, const AttentionShape& shape, Matrix y) {
  const Steps s = steps_of(y, sequences, shape, keys);
  for_grids(shape.head_dim, y.rows, s.heads, [&](dim3 grid, int first) {
    context.launch(mix_kernel, grid, kThreads, 0, s, weights, first);
  });
}

}  // namespace infinilm::cuda
