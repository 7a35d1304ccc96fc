// What attention on tensor cores (attention_tensor.cu, attention_wide.cu) knows of a tile's rows on the way through their keys: softmax as
// one goes along (Milakov and Gimelshein 2018), over lanes as tensor cores have their results.
#pragma once

#include "cuda/attention.cuh"

namespace infinilm::cuda {

// Blocks of the cache in shared memory, a row for each token: keys and values of one, then of the next.
template <int kD>
struct KeyTiles {
  static constexpr int kStride = kD + 8;  // eight rows in different banks
  static constexpr int kElements = kKeys * kStride;
  static constexpr int kStages = kD <= 128 ? 2 : 1;
  static constexpr int kAll = kStages * 2 * kElements;  // elements

  __device__ __forceinline__ static std::uint16_t* keys(std::uint16_t* tiles, int b) {
    return tiles + b % kStages * 2 * kElements;
  }
  __device__ __forceinline__ static std::uint16_t* values(std::uint16_t* tiles, int b) {
    return keys(tiles, b) + kElements;
  }
  // Keys and values of the first `length` tokens of a sequence that are in block b, in the background, by kThreads threads; zeros behind,
  // but for token `left_out` of the block.
  template <int kThreads>
  __device__ __forceinline__ static void fetch(const AttentionTask& task, const Share& s, int b,
                                               int length, std::uint16_t* tiles,
                                               int left_out = -1) {
    const std::byte* block = task.sequences.blocks[s.sequence.first_block + b];
    const auto* k = reinterpret_cast<const std::uint16_t*>(keys_of(task.kv, block, s.kv_head));
    const auto* v = reinterpret_cast<const std::uint16_t*>(values_of(task.kv, block, s.kv_head));
    const int tokens = length - b * kKeys, padded = task.kv.padded;
    constexpr int kPieces = kD / 8;
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x); i < kKeys * kPieces; i += kThreads) {
      const int token = i / kPieces, d = i % kPieces * 8;
      if (token == left_out) continue;
      const bool valid = token < tokens && d < padded;
      const int from = valid ? token * padded + d : 0, to = token * kStride + d;
      copy_async(keys(tiles, b) + to, k + from, valid);
      copy_async(values(tiles, b) + to, v + from, valid);
    }
  }
};

// Calls launch<kF16, kD>() for the type of a cache, and the least kD that has room for its heads.
template <class Launch>
void for_cache(const KvView& kv, Launch launch) {
  const auto of_type = [&]<bool kF16>() {
    if (kv.padded <= 64) return launch.template operator()<kF16, 64>();
    if (kv.padded <= 96) return launch.template operator()<kF16, 96>();
    if (kv.padded <= 128) return launch.template operator()<kF16, 128>();
    launch.template operator()<kF16, 256>();
  };
  if (kv.dtype == DataType::F16) {
    of_type.template operator()<true>();
  } else {
    of_type.template operator()<false>();
  }
}

// RotaryPair i of the head at x.
__device__ __forceinline__ RotaryPair pair_of(const AttentionTask& task, std::int64_t row,
                                              const float* x, int i) {
  return {x[i], x[i + task.kv.head_dim / 2], task.cos[row * task.cos_stride + i],
          task.sin[row * task.sin_stride + i]};
}

// Dimension d of a query head; 0 behind it. Where a rotation comes with the operation, it is done here.
__device__ __forceinline__ float query_of(const AttentionTask& task, std::int64_t row,
                                          const float* head, int d) {
  const int half = task.kv.head_dim / 2;
  if (d >= task.kv.head_dim) return 0.0f;
  if (task.cos == nullptr) return head[d];
  return d < half ? pair_of(task, row, head, d).first()
                  : pair_of(task, row, head, d - half).second();
}

// What a warp knows of its 16 rows; a lane of rows g and g + 8.
template <int kD>
struct RowState {
  float sums[kD / 8][4];
  float peak[2], total[2];
  float shrinks_by[2];
  int position[2], lowest[2];  // keys that a row sees: [lowest, position]

  __device__ __forceinline__ void clear(const AttentionTask& task, const Share& s, int first) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = first + lane_index() / 4 + 8 * h;
      const bool inside = r < s.rows;
      peak[h] = kMinusInfinity;
      total[h] = 0.0f;
      position[h] = inside ? position_of(s, r) : -1;
      lowest[h] = inside ? first_key(position[h], task.window) : 0;
    }
#pragma unroll
    for (int n = 0; n < kD / 8; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
  }

  template <int kCount>
  __device__ __forceinline__ void mask(int key, float (&scores)[kCount][4]) const {
    const int t = lane_index() % 4;
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int k = key + 8 * n + 2 * t + j % 2;
        if (k > position[j / 2] || k < lowest[j / 2]) scores[n][j] = kMinusInfinity;
      }
    }
  }

  // Scores become weights, and totals shrink to the new peak; sums have to, by shrink(). Both rows side by side, each in two chains:
  // there are few warps to fill in for one that waits.
  template <int kCount>
  __device__ __forceinline__ void weigh(float (&scores)[kCount][4], float factor) {
    float largest[2] = {peak[0], peak[1]}, base[2];
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        largest[h] = fmaxf(largest[h], fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
      }
    }
#pragma unroll
    for (int other = 1; other <= 2; ++other) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        largest[h] = fmaxf(largest[h], __shfl_xor_sync(kAll, largest[h], other));
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // A row that has seen nothing yet keeps its zeros.
      base[h] = largest[h] == kMinusInfinity ? 0.0f : largest[h] * factor;
      shrinks_by[h] = power_of_two(fmaf(peak[h], factor, -base[h]));
      peak[h] = largest[h];
    }
    float sum[4] = {};
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scores[n][j] = power_of_two(fmaf(scores[n][j], factor, -base[j / 2]));
        sum[j] += scores[n][j];
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[h] = fmaf(total[h], shrinks_by[h], sum[2 * h] + sum[2 * h + 1]);
    }
  }
  __device__ __forceinline__ void shrink() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        sums[n][2 * h] *= shrinks_by[h];
        sums[n][2 * h + 1] *= shrinks_by[h];
      }
    }
  }

  // Totals over the four lanes of a row.
  __device__ __forceinline__ void gather() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[h] += __shfl_xor_sync(kAll, total[h], 1);
      total[h] += __shfl_xor_sync(kAll, total[h], 2);
    }
  }
};

// Where four columns of a row of the tile go, `merged` over all keys of this block: y, or the memory of a split.
__device__ __forceinline__ void write_result(const AttentionTask& task, const Share& s,
                                             float* partial, int r, int d, Merge merged) {
  if (partial == nullptr) {
    merged.scale(quotient(1.0f, merged.total));
    return put_results(task, s, r, d, merged.sum);
  }
  if (d >= task.kv.padded) return;
  float* to = partial + r * partial_stride(task.kv.padded);
  *reinterpret_cast<float4*>(to + kPartialHead + d) = merged.sum;
  if (d == 0) {
    *reinterpret_cast<float2*>(to) = make_float2(merged.peak * task.scale, merged.total);
  }
}

// A lane's row h times `by`, rounded, where whole rows of kD columns lie at multiples of 16 bytes. The four lanes of a row exchange what
// they have, so that each writes eight neighbouring columns at once. By all lanes of a warp; `valid` ones write.
template <int kD>
__device__ __forceinline__ void write_rounded(const AttentionTask& task, const RowState<kD>& rows,
                                              int h, float by, std::uint16_t* to, bool valid) {
  const int t = lane_index() % 4;
  // Of a and b, the lane's partner gets what it has no use for.
  const auto exchange = [](unsigned& a, unsigned& b, int other, bool upper) {
    const unsigned got = __shfl_xor_sync(kAll, upper ? a : b, other);
    (upper ? a : b) = got;
  };
#pragma unroll
  for (int n = 0; n < kD / 8; n += 4) {
    unsigned w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float (&sums)[4] = rows.sums[n + i];
      w[i] = rounded_pair(task, sums[2 * h] * by, sums[2 * h + 1] * by);
    }
    exchange(w[0], w[1], 1, t % 2 == 1);
    exchange(w[2], w[3], 1, t % 2 == 1);
    exchange(w[0], w[2], 2, t >= 2);
    exchange(w[1], w[3], 2, t >= 2);
    if (valid) *reinterpret_cast<uint4*>(to + 8 * (n + t)) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}

// The same for a warp's 16 rows with all the keys of this block, of which `first` is the first: a lane's two rows, in pairs of columns.
template <int kD>
__device__ __forceinline__ void write_rows(const AttentionTask& task, const Share& s,
                                           float* partial, int first, const RowState<kD>& rows) {
  const int g = lane_index() / 4, t = lane_index() % 4;
  // Of a split all that is read again, in fours.
  const int columns = partial != nullptr ? task.kv.padded : task.kv.head_dim;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = min(first + g + 8 * h, s.rows - 1);
    const bool valid = first + g + 8 * h < s.rows;
    float* to = nullptr;
    std::uint16_t* rounded = nullptr;
    float by = 1.0f;
    if (partial != nullptr) {
      to = partial + r * partial_stride(task.kv.padded);
      if (t == 0 && valid) {
        to[0] = rows.peak[h] * task.scale;
        to[1] = rows.total[h];
      }
      to += kPartialHead;
    } else {
      const std::int64_t row = row_of(s, r), column = column_of(task, s, r);
      if (task.y != nullptr) to = task.y + row * task.y_stride + column;
      if (task.rounded != nullptr) rounded = task.rounded + row * task.rounded_stride + column;
      by = 1.0f / rows.total[h];
    }
    if (to == nullptr && columns == kD && reinterpret_cast<std::uintptr_t>(rounded) % 16 == 0) {
      write_rounded(task, rows, h, by, rounded, valid);
      continue;
    }
    if (!valid) continue;
    const bool in_pairs = columns % 2 == 0 && reinterpret_cast<std::uintptr_t>(to) % 8 == 0 &&
                          reinterpret_cast<std::uintptr_t>(rounded) % 4 == 0;
#pragma unroll
    for (int n = 0; n < kD / 8; ++n) {
      const int d = 8 * n + 2 * t;
      if (d >= columns) continue;
      const float a = rows.sums[n][2 * h] * by, b = rows.sums[n][2 * h + 1] * by;
      const unsigned both = rounded_pair(task, a, b);
      if (in_pairs) {
        if (to != nullptr) *reinterpret_cast<float2*>(to + d) = make_float2(a, b);
        if (rounded != nullptr) *reinterpret_cast<unsigned*>(rounded + d) = both;
        continue;
      }
      if (to != nullptr) to[d] = a;
      if (rounded != nullptr) rounded[d] = static_cast<std::uint16_t>(both);
      if (d + 1 >= columns) continue;
      if (to != nullptr) to[d + 1] = b;
      if (rounded != nullptr) rounded[d + 1] = static_cast<std::uint16_t>(both >> 16);
    }
  }
}

}  // namespace infinilm::cuda
