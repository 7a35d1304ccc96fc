// Attention on tensor cores, for a cache of 16-bit floats and a head_dim up to 256 (Dao et al. 2022, FlashAttention, in its
// forward pass).
//
//   64 keys at a time, copied into shared memory while the ones before are multiplied. A warp has 16 rows of the tile, and
//   keeps their queries, running peaks, totals and sums in registers:
//     scores [16, 64] = q [16, D] keys [64, D]^T;  p = 2^(c (scores - peak));  sums [16, D] += p [16, 64] values [64, D]
//   Many query tokens: four warps with 16 rows each. One token each: all four have the same rows (the query heads of a key
//   head), and a quarter of the keys; their results are merged at the end. Then the tokens themselves may also come with the
//   operation: queries and keys are rotated here, and the block that has a token's position writes it to the cache.
//   What earlier steps left there is on its way before the kernel before has ended: this step begins with a copy to the device,
//   for which everything had to be done.
#include "cuda/attention_rows.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32;

template <int kD>
struct KeyTiles {
  static constexpr int kStride = kD + 8;  // eight rows in different banks
  static constexpr int kElements = kKeys * kStride;
  static constexpr int kStages = kD <= 128 ? 2 : 1;
  static constexpr int kBytes = kStages * 2 * kElements * 2;
  static constexpr int kQueries = 16 * kStride;  // rotated ones
};

// The tile's query heads of one token, as rows of KeyTiles::kStride. Zeros around what rotate_queries puts there:
template <int kD>
__device__ __forceinline__ void clear_queries(const AttentionTask& task, const Share& s,
                                              std::uint16_t* to) {
  const int rotated = task.kv.head_dim / 2 * 2;
  for (int i = static_cast<int>(threadIdx.x); i < 16 * kD; i += kThreads) {
    const int r = i / kD, d = i % kD;
    if (r >= s.rows || d >= rotated) to[r * KeyTiles<kD>::kStride + d] = 0;
  }
}
// rotated and rounded.
template <bool kF16, int kD>
__device__ __forceinline__ void rotate_queries(const AttentionTask& task, const Share& s,
                                               std::uint16_t* to) {
  constexpr int kPairs = kD / 2;
  const int half = task.kv.head_dim / 2;
  const std::int64_t row = row_of(s, 0);
  const float* heads = task.q + row * task.q_stride + column_of(task, s, 0);
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < s.rows * kPairs; i += kThreads) {
    const int r = i / kPairs, d = i % kPairs;
    if (d >= half) continue;
    const RotaryPair pair = pair_of(task, row, heads + r * task.kv.head_dim, d);
    std::uint16_t* at = to + r * KeyTiles<kD>::kStride + d;
    at[0] = to_half<kF16>(pair.first());
    at[half] = to_half<kF16>(pair.second());
  }
}

// A thread's pair of the token's key and value, for those whose number is less than D/2.
struct NewToken {
  std::uint16_t *keys = nullptr,
                *values = nullptr;  // of the head, in the block of the cache that it goes to
  RotaryPair key;
  float value[2] = {};

  __device__ __forceinline__ void find_place(const AttentionTask& task, const Share& s) {
    std::byte* block = task.sequences.blocks[s.sequence.first_block + s.position / kKeys];
    keys = reinterpret_cast<std::uint16_t*>(keys_of(task.kv, block, s.kv_head));
    values = reinterpret_cast<std::uint16_t*>(values_of(task.kv, block, s.kv_head));
  }
  __device__ __forceinline__ void read(const AttentionTask& task, const Share& s) {
    const int i = static_cast<int>(threadIdx.x), half = task.kv.head_dim / 2;
    if (i >= half) return;
    const std::int64_t row = row_of(s, 0), column = std::int64_t{s.kv_head} * task.kv.head_dim;
    key = pair_of(task, row, task.k + row * task.k_stride + column, i);
    const float* v = task.v + row * task.v_stride + column;
    value[0] = v[i];
    value[1] = v[i + half];
  }
  // To its place in the block that holds it: in shared memory, and by one of the head's blocks of threads in the cache.
  template <bool kF16, int kD>
  __device__ __forceinline__ void write(const AttentionTask& task, const Share& s,
                                        std::uint16_t* shared_keys,
                                        std::uint16_t* shared_values) const {
    const int i = static_cast<int>(threadIdx.x), half = task.kv.head_dim / 2;
    if (i >= half) return;
    const int token = s.position % kKeys, padded = task.kv.padded;
    const std::uint16_t k[2] = {to_half<kF16>(key.first()), to_half<kF16>(key.second())};
    const std::uint16_t v[2] = {to_half<kF16>(value[0]), to_half<kF16>(value[1])};
    const bool keeps = s.head == s.kv_head * task.group;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int d = i + h * half;
      shared_keys[token * KeyTiles<kD>::kStride + d] = k[h];
      shared_values[token * KeyTiles<kD>::kStride + d] = v[h];
      if (keeps) keys[token * padded + d] = k[h];
      if (keeps) values[token * padded + d] = v[h];
    }
    for (int d = 2 * half + i; keeps && d < padded; d += half) {
      keys[token * padded + d] = values[token * padded + d] = 0;
    }
  }
};

// A warp's 16 rows, with their queries.
template <bool kF16, int kD>
struct Rows : RowState<kD> {
  using RowState<kD>::sums;
  unsigned q[kD / 16][4];

  // From what rotate_queries left.
  __device__ __forceinline__ void load(const std::uint16_t* rotated) {
    const int lane = lane_index();
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      const int row = lane % 16, d = step * 16 + lane / 16 * 8;
      const uint4 a = load_matrices<false>(rotated + row * KeyTiles<kD>::kStride + d);
      q[step][0] = a.x;
      q[step][1] = a.y;
      q[step][2] = a.z;
      q[step][3] = a.w;
    }
  }

  __device__ __forceinline__ void load(const AttentionTask& task, const Share& s, int first) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = first + g + 8 * h;
      const bool inside = r < s.rows;
      const std::int64_t row = row_of(s, r);
      const float* x = task.q + row * task.q_stride + column_of(task, s, r);
#pragma unroll
      for (int step = 0; step < kD / 16; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int d = step * 16 + half * 8 + 2 * t;
          const float a = inside ? query_of(task, row, x, d) : 0.0f;
          const float b = inside ? query_of(task, row, x, d + 1) : 0.0f;
          q[step][half * 2 + h] = pack_half<kF16>(a, b);
        }
      }
    }
  }

  // kCount times 8 keys of a block, from `first` on; `key`: the block's first. `whole`: all rows see all of them.
  template <int kCount>
  __device__ __forceinline__ void attend(const std::uint16_t* keys, const std::uint16_t* values,
                                         int first, int key, float factor, bool whole) {
    float scores[kCount][4];
    score<kCount>(keys, first, scores);
    if (!whole) this->template mask<kCount>(key + first, scores);
    this->template weigh<kCount>(scores, factor);
    this->shrink();
    mix<kCount>(values, first, scores);
  }

  template <int kCount>
  __device__ __forceinline__ void score(const std::uint16_t* keys, int first,
                                        float (&scores)[kCount][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kCount; n += 2) {
        const int row = first + 8 * (n + lane / 16) + lane % 8;
        const int d = step * 16 + lane / 8 % 2 * 8;
        const uint4 b = load_matrices<false>(keys + row * KeyTiles<kD>::kStride + d);
        multiply<kF16>(scores[n], q[step], b.x, b.y);
        multiply<kF16>(scores[n + 1], q[step], b.z, b.w);
      }
    }
  }

  template <int kCount>
  __device__ __forceinline__ void mix(const std::uint16_t* values, int first,
                                      const float (&p)[kCount][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int k = 0; k < kCount; k += 2) {
      const unsigned a[4] = {pack_half<kF16>(p[k][0], p[k][1]), pack_half<kF16>(p[k][2], p[k][3]),
                             pack_half<kF16>(p[k + 1][0], p[k + 1][1]),
                             pack_half<kF16>(p[k + 1][2], p[k + 1][3])};
#pragma unroll
      for (int n = 0; n < kD / 8; n += 2) {
        const int row = first + 8 * k + lane / 8 % 2 * 8 + lane % 8, d = 8 * (n + lane / 16);
        const uint4 b = load_matrices<true>(values + row * KeyTiles<kD>::kStride + d);
        multiply<kF16>(sums[n], a, b.x, b.y);
        multiply<kF16>(sums[n + 1], a, b.z, b.w);
      }
    }
  }
};

// The results of four warps for the same rows become one; `memory` is free for it.
template <bool kF16, int kD>
__device__ __forceinline__ void merge_warps(const AttentionTask& task, const Share& s,
                                            const Rows<kF16, kD>& rows, float* memory,
                                            float* partial) {
  constexpr int kRow = partial_stride(kD), kPieces = kD / 4;
  const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = g + 8 * h;
    if (r >= s.rows) continue;
    float* to = memory + (warp_index() * 16 + r) * kRow;
    if (t == 0) *reinterpret_cast<float2*>(to) = make_float2(rows.peak[h], rows.total[h]);
#pragma unroll
    for (int n = 0; n < kD / 8; ++n) {
      *reinterpret_cast<float2*>(to + kPartialHead + 8 * n + 2 * t) =
          make_float2(rows.sums[n][2 * h], rows.sums[n][2 * h + 1]);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < s.rows * kPieces; i += kThreads) {
    const int r = i / kPieces, d = i % kPieces * 4;
    float2 heads[kWarps];
    float4 sums[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* from = memory + (w * 16 + r) * kRow;
      heads[w] = *reinterpret_cast<const float2*>(from);
      sums[w] = load_four(from + kPartialHead + d);
    }
    Merge merge{task.scale * kBitsOfE};
    merge.add(heads, sums);
    write_result(task, s, partial, r, d, merge);
  }
}

// kOneRowEach: the warps share the rows and divide the keys.
template <bool kF16, int kD, bool kOneRowEach>
__global__ void __launch_bounds__(kThreads) attention_kernel(AttentionTask task) {
  using T = KeyTiles<kD>;
  INFINILM_SHARED_MEMORY(memory);
  auto* tiles = reinterpret_cast<std::uint16_t*>(memory);
  const auto keys = [&](int b) { return tiles + b % T::kStages * 2 * T::kElements; };
  const auto values = [&](int b) { return keys(b) + T::kElements; };
  let_next_start();
  const Share s = share_of(task);  // of what was uploaded
  const bool takes_tokens = kOneRowEach && task.k != nullptr;
  if (!takes_tokens) wait_for_previous();
  if (s.block_begin >= s.block_end) return;
  const int length = takes_tokens ? s.sequence.past : s.sequence.past + s.sequence.rows;
  // One group of copies each time, also of none: waiting counts them.
  const auto ask_for = [&](int b) {
    if (b < s.block_end) {
      fetch_block<kD, kThreads>(
          task, s, b, length, keys(b), values(b),
          [](std::uint16_t* tile, int token, int d) { return tile + token * T::kStride + d; });
    }
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < T::kStages; ++i) ask_for(s.block_begin + i);
  Rows<kF16, kD> rows;
  rows.clear(task, s, kOneRowEach ? 0 : warp_index() * 16);
  NewToken token;
  const int last_block = takes_tokens ? s.position / kKeys : -1;
  if (takes_tokens) {
    std::uint16_t* queries = tiles + T::kBytes / 2;
    clear_queries<kD>(task, s, queries);
    token.find_place(task, s);
    wait_for_previous();
    if (last_block < s.block_end) token.read(task, s);
    rotate_queries<kF16, kD>(task, s, queries);
    __syncthreads();
    rows.load(queries);
  } else {
    rows.load(task, s, kOneRowEach ? 0 : warp_index() * 16);
  }
  const float factor = task.scale * kBitsOfE;
  const int last = position_of(s, s.rows - 1);
  for (int b = s.block_begin; b < s.block_end; ++b) {
    wait_for_copies<T::kStages - 1>();
    __syncthreads();
    if (b == last_block) {
      token.write<kF16, kD>(task, s, keys(b), values(b));
      __syncthreads();
    }
    const int key = b * kKeys;
    const bool whole =
        s.rows % 16 == 0 && key + kKeys - 1 <= s.position && key >= first_key(last, task.window);
    if constexpr (kOneRowEach) {
      rows.template attend<2>(keys(b), values(b), warp_index() * 16, key, factor, whole);
    } else {
      rows.template attend<8>(keys(b), values(b), 0, key, factor, whole);
    }
    __syncthreads();
    ask_for(b + T::kStages);
  }
  rows.gather();
  constexpr int kRowsOfTile = kOneRowEach ? 16 : 64;
  float* partial =
      s.splits == 1 ? nullptr : partial_of(task, kRowsOfTile, static_cast<int>(blockIdx.y));
  if constexpr (kOneRowEach) {
    merge_warps<kF16, kD>(task, s, rows, reinterpret_cast<float*>(memory), partial);
  } else {
    write_rows(task, s, partial, warp_index() * 16, rows);
  }
  if (partial != nullptr) merge_splits<kRowsOfTile>(task, s);
}

template <bool kF16, int kD>
void launch(Context& context, const AttentionTask& task, dim3 grid, bool one_row_each) {
  constexpr int kMerging = kWarps * 16 * partial_stride(kD) * 4;
  static_assert(kMerging <= KeyTiles<kD>::kBytes);
  const auto kernel =
      one_row_each ? attention_kernel<kF16, kD, true> : attention_kernel<kF16, kD, false>;
  const int shared = KeyTiles<kD>::kBytes + (one_row_each ? KeyTiles<kD>::kQueries * 2 : 0);
  context.launch(kernel, grid, kThreads, static_cast<std::size_t>(shared), task);
}

template <bool kF16>
void launch(Context& context, const AttentionTask& task, dim3 grid, bool one_row_each) {
  if (task.kv.padded <= 64) return launch<kF16, 64>(context, task, grid, one_row_each);
  if (task.kv.padded <= 96) return launch<kF16, 96>(context, task, grid, one_row_each);
  if (task.kv.padded <= 128) return launch<kF16, 128>(context, task, grid, one_row_each);
  launch<kF16, 256>(context, task, grid, one_row_each);
}

}  // namespace

bool has_tensor_attention(const AttentionShape& shape) {
  const bool halves = shape.kv_dtype == DataType::BF16 || shape.kv_dtype == DataType::F16;
  return halves && shape.head_dim <= 256;
}

void attend_on_tensor_cores(Context& context, const AttentionTask& task, dim3 grid,
                            bool one_row_each) {
  if (task.kv.dtype == DataType::F16) {
    launch<true>(context, task, grid, one_row_each);
  } else {
    launch<false>(context, task, grid, one_row_each);
  }
}

}  // namespace infinilm::cuda
