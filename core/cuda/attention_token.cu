// Attention of one token for each sequence, on tensor cores, for a cache of 16-bit floats and a head_dim up to 256.
//
//   A block of four warps has a token's query heads of one key head, up to eight of them, and some blocks of the cache, 64 keys each, of
//   which a warp takes 16. Keys and values are what is multiplied by, and queries, since they are few, the columns:
//     scores [16 keys, 8 heads] = keys [16, D] q [8, D]^T;  p = 2^(c (scores - peak));  sums [D, 8 heads] += values [16, D]^T p
//   Each warp keeps peaks, totals and sums of its own keys, as one goes along (attention_rows.cuh); they are merged at the end.
//
// It is a chain of waits, between two products, so what counts is how much there is to do one after the other, instructions to be fetched
// included. What earlier steps left in the cache is on its way before the kernel before has ended: this step begins with a copy to the
// device, for which everything had to be done. The token itself may come with the operation: queries and key are rotated here, and
// the block that has its position writes it to the cache.
#include <algorithm>

#include "cuda/attention_rows.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32;

// The queries lie behind the tiles.
template <int kD>
struct Tiles : KeyTiles<kD> {
  static constexpr int kBytes = (KeyTiles<kD>::kAll + kTokenHeads * KeyTiles<kD>::kStride) * 2;
};

// Two dimensions of a head, d and d + half.
struct Pair {
  float a = 0.0f, b = 0.0f;
};

// What a thread has of heads: a pair of every kAtOnce-th one. All pairs are read before one of them is looked at: memory answers once.
template <int kD>
struct OwnPair {
  static constexpr int kPairs = kD <= 64 ? 32 : kD <= 128 ? 64 : 128;  // threads of a head
  static constexpr int kAtOnce = kThreads / kPairs;
  const int d, half, first_head;
  RotaryPair angle;

  __device__ __forceinline__ OwnPair(const AttentionTask& task, const Share& s)
      : d(static_cast<int>(threadIdx.x) % kPairs),
        half(task.kv.head_dim / 2),
        first_head(static_cast<int>(threadIdx.x) / kPairs) {
    if (task.cos == nullptr || d >= half) return;
    angle.cos = task.cos[row_of(s, 0) * task.cos_stride + d];
    angle.sin = task.sin[row_of(s, 0) * task.sin_stride + d];
  }
  // `at`: the first of the two.
  __device__ __forceinline__ Pair read(const float* at) const { return {at[0], at[half]}; }
  __device__ __forceinline__ RotaryPair turned(const Pair& pair) const {
    return {pair.a, pair.b, angle.cos, angle.sin};
  }
};

// A thread's pairs of the token's query heads.
template <bool kF16, int kD>
struct Queries {
  static constexpr int kAtOnce = OwnPair<kD>::kAtOnce, kCount = kTokenHeads / kAtOnce;
  const float* from;  // the first one
  Pair pairs[kCount];

  __device__ __forceinline__ Queries(const AttentionTask& task, const Share& s,
                                     const OwnPair<kD>& own)
      : from(task.q + row_of(s, 0) * task.q_stride + column_of(task, s, 0) +
             own.first_head * task.kv.head_dim + own.d) {}
  __device__ __forceinline__ void read(const AttentionTask& task, const Share& s,
                                       const OwnPair<kD>& own) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int r = own.first_head + i * kAtOnce;
      if (r < s.rows && own.d < own.half) {
        pairs[i] = own.read(from + i * kAtOnce * task.kv.head_dim);
      }
    }
  }
  // Into rows of Tiles::kStride, rotated and rounded.
  __device__ __forceinline__ void write(const Share& s, const OwnPair<kD>& own,
                                        std::uint16_t* to) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int r = own.first_head + i * kAtOnce;
      if (r >= s.rows || own.d >= own.half) break;
      const RotaryPair pair = own.turned(pairs[i]);
      std::uint16_t* at = to + r * Tiles<kD>::kStride + own.d;
      at[0] = to_half<kF16>(pair.first());
      at[own.half] = to_half<kF16>(pair.second());
    }
  }
};
// Zeros around that: heads that are not there, dimensions behind the last.
template <int kD>
__device__ __forceinline__ void clear_queries(const AttentionTask& task, const Share& s,
                                              std::uint16_t* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kTokenHeads * kD; i += kThreads) {
    const int r = i / kD, d = i % kD;
    if (r >= s.rows || d >= task.kv.head_dim) to[r * Tiles<kD>::kStride + d] = 0;
  }
}

// Of the token's key and value, the pair of those threads that have the first head's.
template <bool kF16, int kD>
struct NewToken {
  std::uint16_t *keys = nullptr, *values = nullptr;  // of the head, in the block that it goes to
  const float *key_from = nullptr, *value_from = nullptr;
  Pair key, value;

  __device__ __forceinline__ void find_places(const AttentionTask& task, const Share& s,
                                              const OwnPair<kD>& own) {
    const std::int64_t row = row_of(s, 0);
    const std::int64_t column = std::int64_t{s.kv_head} * task.kv.head_dim + own.d;
    key_from = task.k + row * task.k_stride + column;
    value_from = task.v + row * task.v_stride + column;
    std::byte* block = task.sequences.blocks[s.sequence.first_block + s.position / kKeys];
    keys = reinterpret_cast<std::uint16_t*>(keys_of(task.kv, block, s.kv_head));
    values = reinterpret_cast<std::uint16_t*>(values_of(task.kv, block, s.kv_head));
  }
  __device__ __forceinline__ static bool has_part(const OwnPair<kD>& own) {
    return own.first_head == 0 && own.d < own.half;
  }
  __device__ __forceinline__ void read(const OwnPair<kD>& own) {
    if (!has_part(own)) return;
    key = own.read(key_from);
    value = own.read(value_from);
  }
  // To its place among the block's in shared memory, and by one of the key head's blocks of threads in the cache.
  __device__ __forceinline__ void write(const AttentionTask& task, const Share& s,
                                        const OwnPair<kD>& own, std::uint16_t* shared_keys,
                                        std::uint16_t* shared_values) const {
    if (own.first_head != 0) return;
    const int token = s.position % kKeys, padded = task.kv.padded;
    const bool keeps = s.head == s.kv_head * task.group;
    const auto put = [&](int d, std::uint16_t k, std::uint16_t v) {
      shared_keys[token * Tiles<kD>::kStride + d] = k;
      shared_values[token * Tiles<kD>::kStride + d] = v;
      if (!keeps || d >= padded) return;
      keys[token * padded + d] = k;
      values[token * padded + d] = v;
    };
    if (own.d < own.half) {
      const RotaryPair turned = own.turned(key);
      put(own.d, to_half<kF16>(turned.first()), to_half<kF16>(value.a));
      put(own.d + own.half, to_half<kF16>(turned.second()), to_half<kF16>(value.b));
    }
#pragma unroll
    for (int i = 0; i < kD; i += OwnPair<kD>::kPairs) {
      const int d = task.kv.head_dim + own.d + i;
      if (d < kD) put(d, 0, 0);
    }
  }
};

// What a warp knows of its keys so far. Lane (g, t), g = lane / 4, has heads 2 t and 2 t + 1.
template <bool kF16, int kD>
struct Heads {
  unsigned q[kD / 16][2];
  float sums[kD / 16][4] = {};  // [n]: dimensions 16 n + g of both heads, then 16 n + g + 8
  float peak[2] = {kMinusInfinity, kMinusInfinity}, total[2] = {};

  __device__ __forceinline__ void load(const std::uint16_t* queries) {
    const int lane = lane_index();
#pragma unroll
    for (int step = 0; step < kD / 16; step += 2) {
      const int d = step * 16 + lane / 8 * 8;
      const uint4 b = load_matrices<false>(queries + lane % 8 * Tiles<kD>::kStride + d);
      q[step][0] = b.x, q[step][1] = b.y;
      q[step + 1][0] = b.z, q[step + 1][1] = b.w;
    }
  }
  // Keys first … first + 15 of a block, of which `key` is the first one's number; those in [lowest, position] count.
  __device__ __forceinline__ void attend(const std::uint16_t* keys, const std::uint16_t* values,
                                         int first, int key, int lowest, int position,
                                         float factor) {
    float scores[4];
    score(keys, first, scores);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = key + first + lane_index() / 4 + 8 * half;
      const bool counts = k <= position && k >= lowest;
      if (!counts) scores[2 * half] = scores[2 * half + 1] = kMinusInfinity;
    }
    weigh(scores, factor);
    mix(values, first, scores);
  }
  // Totals over the lanes of a head.
  __device__ __forceinline__ void gather() {
#pragma unroll
    for (int other = 4; other <= 16; other *= 2) {
      total[0] += __shfl_xor_sync(kAll, total[0], other);
      total[1] += __shfl_xor_sync(kAll, total[1], other);
    }
  }

 private:
  __device__ __forceinline__ void score(const std::uint16_t* keys, int first, float (&scores)[4]) {
    float parts[2][4] = {};  // one product need not wait for the one before
    const int lane = lane_index();
    const std::uint16_t* row = keys + (first + lane % 16) * Tiles<kD>::kStride + lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      const uint4 m = load_matrices<false>(row + step * 16);
      const unsigned a[4] = {m.x, m.y, m.z, m.w};
      multiply<kF16>(parts[step % 2], a, q[step][0], q[step][1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[i] = parts[0][i] + parts[1][i];
  }
  // Scores become weights; totals and sums shrink to the new peak.
  __device__ __forceinline__ void weigh(float (&scores)[4], float factor) {
    float shrinks_by[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float largest = fmaxf(peak[j], fmaxf(scores[j], scores[j + 2]));
#pragma unroll
      for (int other = 4; other <= 16; other *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, other));
      }
      // A head that has seen nothing yet keeps its zeros.
      const float base = largest == kMinusInfinity ? 0.0f : largest * factor;
      shrinks_by[j] = power_of_two(fmaf(peak[j], factor, -base));
      peak[j] = largest;
      scores[j] = power_of_two(fmaf(scores[j], factor, -base));
      scores[j + 2] = power_of_two(fmaf(scores[j + 2], factor, -base));
      total[j] = fmaf(total[j], shrinks_by[j], scores[j] + scores[j + 2]);
    }
#pragma unroll
    for (int n = 0; n < kD / 16; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] *= shrinks_by[i % 2];
    }
  }
  __device__ __forceinline__ void mix(const std::uint16_t* values, int first, const float (&p)[4]) {
    const unsigned b0 = transpose_matrix(pack_half<kF16>(p[0], p[1]));
    const unsigned b1 = transpose_matrix(pack_half<kF16>(p[2], p[3]));
    const int lane = lane_index();
    const std::uint16_t* row =
        values + (first + lane / 16 * 8 + lane % 8) * Tiles<kD>::kStride + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < kD / 16; ++n) {
      const uint4 m = load_matrices<true>(row + n * 16);
      const unsigned a[4] = {m.x, m.y, m.z, m.w};
      multiply<kF16>(sums[n], a, b0, b1);
    }
  }
};

// The results of all warps become one, over all keys of this block; `memory` is free for it.
template <bool kF16, int kD>
__device__ __forceinline__ void merge_warps(const AttentionTask& task, const Share& s,
                                            const Heads<kF16, kD>& heads, float* memory,
                                            float* partial) {
  constexpr int kRow = partial_stride(kD), kPieces = kD / 4;
  const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int r = 2 * t + j;
    if (r >= s.rows) continue;
    float* to = memory + (warp_index() * kTokenHeads + r) * kRow;
    if (g == 0) *reinterpret_cast<float2*>(to) = make_float2(heads.peak[j], heads.total[j]);
#pragma unroll
    for (int n = 0; n < kD / 16; ++n) {
      to[kPartialHead + 16 * n + g] = heads.sums[n][j];
      to[kPartialHead + 16 * n + g + 8] = heads.sums[n][j + 2];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < s.rows * kPieces; i += kThreads) {
    const int r = i / kPieces, d = i % kPieces * 4;
    float2 of_warps[kWarps];
    float4 sums[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* from = memory + (w * kTokenHeads + r) * kRow;
      of_warps[w] = *reinterpret_cast<const float2*>(from);
      sums[w] = load_four(from + kPartialHead + d);
    }
    Merge merge{task.scale * kBitsOfE};
    merge.add(of_warps, sums);
    write_result(task, s, partial, r, d, merge);
  }
}

template <bool kF16, int kD>
__global__ void __launch_bounds__(kThreads) token_kernel(AttentionTask task) {
  using T = Tiles<kD>;
  INFINILM_SHARED_MEMORY(all);
  unsigned char* memory = shared_pointer(kept(shared_address(all)));
  auto* tiles = reinterpret_cast<std::uint16_t*>(memory);
  std::uint16_t* queries = tiles + T::kAll;
  let_next_start();
  const Share s = share_of(task, item_of_block());  // of what was uploaded
  const bool takes_token = task.k != nullptr;
  if (!takes_token) wait_for_previous();
  if (s.block_begin >= s.block_end) return;
  // One group of copies each time, also of none: waiting counts them.
  const int length = s.sequence.past + (takes_token ? 0 : 1);
  const auto ask_for = [&](int b) {
    if (b < s.block_end) {
      // The token's own place is left out: it is not on its way from there.
      const int own = takes_token ? s.position - b * kKeys : -1;
      T::template fetch<kThreads>(task, s, b, length, tiles, own);
    }
    commit_copies();
  };
#pragma unroll 1
  for (int i = 0; i < T::kStages; ++i) ask_for(s.block_begin + i);
  clear_queries<kD>(task, s, queries);
  const OwnPair<kD> own(task, s);
  Queries<kF16, kD> query(task, s, own);
  NewToken<kF16, kD> token;
  const int last_block = takes_token ? s.position / kKeys : -1;
  if (takes_token) {
    token.find_places(task, s, own);
    wait_for_previous();
    if (last_block < s.block_end) token.read(own);
  }
  query.read(task, s, own);
  query.write(s, own, queries);
  Heads<kF16, kD> heads;
  const float factor = task.scale * kBitsOfE;
  const int lowest = first_key(s.position, task.window);
  for (int b = s.block_begin; b < s.block_end; ++b) {
    if (b == last_block) token.write(task, s, own, T::keys(tiles, b), T::values(tiles, b));
    wait_for_copies<T::kStages - 1>();
    __syncthreads();
    if (b == s.block_begin) heads.load(queries);
    heads.attend(T::keys(tiles, b), T::values(tiles, b), warp_index() * 16, b * kKeys, lowest,
                 s.position, factor);
    __syncthreads();
    ask_for(b + T::kStages);
  }
  heads.gather();
  float* partial = s.splits == 1 ? nullptr : partial_of(task, s.item, kTokenHeads, s.item.split);
  merge_warps<kF16, kD>(task, s, heads, reinterpret_cast<float*>(memory), partial);
  if (partial != nullptr) merge_splits<kTokenHeads>(task, s);
}

template <bool kF16, int kD>
void launch(Context& context, const AttentionTask& task, dim3 grid) {
  constexpr int kMerging = kWarps * kTokenHeads * partial_stride(kD) * 4;
  static_assert(kMerging <= Tiles<kD>::kBytes);
  std::size_t shared = Tiles<kD>::kBytes;
  // Beside the block of the product before, two of few blocks would have room on one multiprocessor, and leave none there for the next
  // product's block, for which all would wait then.
  const bool are_few = grid.x <= static_cast<unsigned>(context.multiprocessors());
  if (are_few && shared > context.shared_limit() / 4) {
    shared = std::max(shared, context.shared_limit() / 3 + 1);
  }
  context.launch(token_kernel<kF16, kD>, grid, kThreads, shared, task);
}

}  // namespace

void attend_token(Context& context, const AttentionTask& task, dim3 grid) {
  for_cache(task.kv, [&]<bool kF16, int kD>() { launch<kF16, kD>(context, task, grid); });
}

}  // namespace infinilm::cuda
