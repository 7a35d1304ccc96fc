// What the attention kernels share: which rows and blocks of the cache a block of threads has, and how partial results
// become one.
//
// A tile's rows are its tokens times the query heads of one key head, up to `kRows` of them: row r is token r / heads and head
// r % heads of the tile. Several blocks of threads share the tile's keys, a split each; the last to arrive adds up.
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/kv.cuh"

namespace infinilm::cuda {

inline constexpr int kMostSplits = 32;

struct AttentionTask {
  const float* q;
  float* y;
  std::int64_t q_stride, y_stride;
  std::uint16_t* rounded;  // y too, if not null
  std::int64_t rounded_stride;
  bool rounds_to_f16;
  Sequences sequences;
  KvView kv;
  int group;       // query heads of a key head
  int tile_heads;  // those of them that a tile has
  int tile_tokens;
  int window;
  int least_blocks;  // of the cache, that a split has
  int step_blocks;   // that are gone through at once, a power of two: a split has a multiple
  float scale;
  bool fours;         // results can be written four at a time
  float* partial;     // per split: [rows, partial_stride]
  unsigned* arrived;  // per tile and head
  int tiles, splits;  // how many
  // For attend_wide, whose blocks of threads draw one item after the other: how many were drawn behind the first of each block. Zero
  // between operations, as `arrived`, of which it is the last.
  unsigned* drawn;
  // What it multiplies instead of q: rotated, rounded to the cache's type, heads at multiples of kv.padded.
  const std::uint16_t* queries;
  std::int64_t queries_stride;
  // The step's tokens, row by row as q. With `k`: not in the cache yet. With `cos`: q is not rotated yet; tables were uploaded, no kernel
  // writes them.
  const float *k, *v, *cos, *sin;
  std::int64_t k_stride, v_stride, cos_stride, sin_stride;
};

// A tile, and a split of its keys.
struct Item {
  int tile, tiles, split, splits;
};
__device__ __forceinline__ Item item_of_block() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), static_cast<int>(blockIdx.y),
          static_cast<int>(gridDim.y)};
}

// What is to be done of it.
struct Share {
  Item item;
  SequenceInfo sequence;
  int first;  // token
  int rows;   // of the tile
  int tile_heads;
  int head;  // first query head
  int kv_head;
  int position;                // of the first token
  int block_begin, block_end;  // of the cache
  int splits;                  // that have something to do
};

__device__ __forceinline__ Share share_of(const AttentionTask& task, const Item& item) {
  Share s;
  s.item = item;
  const int chunks = (task.group + task.tile_heads - 1) / task.tile_heads;
  const int heads = task.kv.kv_heads * chunks;
  // A prompt's last tokens see the most keys: they come first, so that nobody waits for them in the end.
  const int index = item.tiles - 1 - item.tile, head = index % heads;
  const QueryTile tile = task.sequences.tiles[index / heads];
  const int chunk = head % chunks;
  s.sequence = task.sequences.info[tile.sequence];
  s.first = tile.first;
  s.kv_head = head / chunks;
  s.head = s.kv_head * task.group + chunk * task.tile_heads;
  s.tile_heads = min(task.tile_heads, task.group - chunk * task.tile_heads);
  const int tokens = min(task.tile_tokens, s.sequence.rows - tile.first);
  s.rows = tokens * s.tile_heads;
  s.position = s.sequence.past + tile.first;
  const int begin = first_key(s.position, task.window) / kKeys;
  const int end = (s.position + tokens - 1) / kKeys + 1;
  const int least = max((end - begin + item.splits - 1) / item.splits, task.least_blocks);
  const int each = (least + task.step_blocks - 1) & -task.step_blocks;
  s.splits = (end - begin + each - 1) / each;
  s.block_begin = min(end, begin + item.split * each);
  s.block_end = min(end, s.block_begin + each);
  return s;
}

// Row and column of q and y where row r of the tile begins.
__device__ __forceinline__ std::int64_t row_of(const Share& s, int r) {
  return s.sequence.row_begin + s.first + r / s.tile_heads;
}
__device__ __forceinline__ std::int64_t column_of(const AttentionTask& task, const Share& s,
                                                  int r) {
  return static_cast<std::int64_t>(s.head + r % s.tile_heads) * task.kv.head_dim;
}
__device__ __forceinline__ int position_of(const Share& s, int r) {
  return s.position + r / s.tile_heads;
}
__device__ __forceinline__ bool sees(const AttentionTask& task, int position, int key) {
  return key <= position && key >= first_key(position, task.window);
}

// Where row r's result of dimension d goes.
__device__ __forceinline__ void put_result(const AttentionTask& task, const Share& s, int r, int d,
                                           float value) {
  const std::int64_t row = row_of(s, r), column = column_of(task, s, r) + d;
  if (task.y != nullptr) task.y[row * task.y_stride + column] = value;
  if (task.rounded != nullptr) {
    task.rounded[row * task.rounded_stride + column] =
        task.rounds_to_f16 ? to_half<true>(value) : to_half<false>(value);
  }
}

// Two neighbouring results, rounded.
__device__ __forceinline__ unsigned rounded_pair(const AttentionTask& task, float a, float b) {
  return task.rounds_to_f16 ? pack_half<true>(a, b) : pack_half<false>(a, b);
}

// Those of four neighbouring dimensions.
__device__ __forceinline__ void put_results(const AttentionTask& task, const Share& s, int r, int d,
                                            const float4& v) {
  const std::int64_t row = row_of(s, r), column = column_of(task, s, r) + d;
  if (!task.fours) {
    const float all[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4 && d + i < task.kv.head_dim; ++i) put_result(task, s, r, d + i, all[i]);
    return;
  }
  if (d >= task.kv.head_dim) return;
  if (task.y != nullptr) *reinterpret_cast<float4*>(task.y + row * task.y_stride + column) = v;
  if (task.rounded != nullptr) {
    *reinterpret_cast<uint2*>(task.rounded + row * task.rounded_stride + column) = {
        rounded_pair(task, v.x, v.y), rounded_pair(task, v.z, v.w)};
  }
}

// A row's result over some of its keys, in memory: the peak of their scores, their total, two that are free, and its sums, for weights
// e^(score - peak). (Of warps, in shared memory, peaks are not scaled yet.)
inline constexpr int kPartialHead = 4;
__host__ __device__ constexpr int partial_stride(int padded) { return padded + kPartialHead; }

// Memory of a split's partial results of `rows` rows.
__device__ __forceinline__ float* partial_of(const AttentionTask& task, const Item& item, int rows,
                                             int split) {
  const std::int64_t before = static_cast<std::int64_t>(item.tile) * item.splits + split;
  return task.partial + before * rows * partial_stride(task.kv.padded);
}

// Results over some keys each, of four columns of a row, become one over all keys: by log-sum-exp.
struct Merge {
  float to_bits;  // what a difference of peaks is multiplied by: weights are powers of two
  float peak = kMinusInfinity, total = 0.0f;
  float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};

  // heads: peak and total. What has seen nothing counts for nothing.
  template <int kCount>
  __device__ __forceinline__ void add(const float2 (&heads)[kCount], const float4 (&sums)[kCount]) {
    float larger = peak;
#pragma unroll
    for (const float2& head : heads) larger = fmaxf(larger, head.x);
    const float base = larger == kMinusInfinity ? 0.0f : larger;
    scale(power_of_two((peak - base) * to_bits));
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float weight = power_of_two((heads[i].x - base) * to_bits);
      total = fmaf(weight, heads[i].y, total);
      sum.x = fmaf(weight, sums[i].x, sum.x);
      sum.y = fmaf(weight, sums[i].y, sum.y);
      sum.z = fmaf(weight, sums[i].z, sum.z);
      sum.w = fmaf(weight, sums[i].w, sum.w);
    }
    peak = larger;
  }
  __device__ __forceinline__ void scale(float by) {
    total *= by;
    sum = make_float4(sum.x * by, sum.y * by, sum.z * by, sum.w * by);
  }
};

// All threads of a block.
struct WholeBlock {
  __device__ static int count() { return static_cast<int>(blockDim.x); }
  __device__ static void meet() { __syncthreads(); }
};

// Called by all threads of a team, a block's first ones, once this split's results are written: the last one of the tile merges them by
// log-sum-exp.
template <int kRows, class Team = WholeBlock>
__device__ void merge_splits(const AttentionTask& task, const Share& s) {
  __shared__ bool is_last;
  Team::meet();
  if (threadIdx.x == 0) {
    __threadfence();
    unsigned* arrived = task.arrived + s.item.tile;
    is_last = atomicAdd(arrived, 1u) == static_cast<unsigned>(s.splits) - 1;
    if (is_last) *arrived = 0;  // for the next operation
    __threadfence();
  }
  Team::meet();
  if (!is_last) return;
  // Independent loads: it is their number of round trips that takes time.
  constexpr int kAtOnce = 8;
  const int stride = partial_stride(task.kv.padded), pieces = (task.kv.head_dim + 3) / 4;
  for (int i = static_cast<int>(threadIdx.x); i < s.rows * pieces; i += Team::count()) {
    const int r = i / pieces, d = i % pieces * 4;
    const float* first = partial_of(task, s.item, kRows, 0) + r * stride;
    Merge merge{kBitsOfE};
    for (int split = 0; split < s.splits; split += kAtOnce) {
      float2 heads[kAtOnce];
      float4 sums[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const bool there = split + k < s.splits;
        const float* from = first + (there ? split + k : 0) * kRows * stride;
        heads[k] = __ldcg(reinterpret_cast<const float2*>(from));
        sums[k] = __ldcg(reinterpret_cast<const float4*>(from + kPartialHead + d));
        if (there) continue;
        heads[k] = make_float2(kMinusInfinity, 0.0f);
        sums[k] = zero_four();
      }
      merge.add(heads, sums);
    }
    merge.scale(1.0f / merge.total);
    put_results(task, s, r, d, merge.sum);
  }
}

// The kernels. `attend_on_tensor_cores` only where has_tensor_attention.
void attend_in_floats(Context& context, const AttentionTask& task, dim3 grid);
bool has_tensor_attention(const AttentionShape& shape);
void attend_on_tensor_cores(Context& context, const AttentionTask& task, dim3 grid);
// Of one token for each sequence, which may come with the operation.
inline constexpr int kTokenHeads = 8;
void attend_token(Context& context, const AttentionTask& task, dim3 grid);
// Of many tokens, where has_wide_attention.
bool has_wide_attention(const Context& context, const AttentionShape& shape);
inline constexpr int kWideRows = 128;
inline constexpr int kWideBlocks = 2;  // of the cache, at once
void attend_wide(Context& context, const AttentionTask& task);

inline constexpr int kFloatRows = 16;

}  // namespace infinilm::cuda
