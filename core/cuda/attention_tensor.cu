// Attention on tensor cores, for a cache of 16-bit floats and a head_dim up to 256 (Dao et al. 2022, FlashAttention, in its
// forward pass).
//
//   64 keys at a time, copied into shared memory while the ones before are multiplied. Each of four warps has 16 rows of the tile, and
//   keeps their queries, running peaks, totals and sums in registers:
//     scores [16, 64] = q [16, D] keys [64, D]^T;  p = 2^(c (scores - peak));  sums [16, D] += p [16, 64] values [64, D]
#include "cuda/attention_rows.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32, kRowsOfTile = kWarps * 16;

// A warp's 16 rows, with their queries.
template <bool kF16, int kD>
struct Rows : RowState<kD> {
  using RowState<kD>::sums;
  unsigned q[kD / 16][4];

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

  // A block's keys, of which `key` is the first one's number. `whole`: all rows see all of them.
  __device__ __forceinline__ void attend(const std::uint16_t* keys, const std::uint16_t* values,
                                         int key, float factor, bool whole) {
    float scores[kKeys / 8][4];
    score(keys, scores);
    if (!whole) this->template mask<kKeys / 8>(key, scores);
    this->template weigh<kKeys / 8>(scores, factor);
    this->shrink();
    mix(values, scores);
  }

 private:
  __device__ __forceinline__ void score(const std::uint16_t* keys, float (&scores)[kKeys / 8][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 2) {
        const int row = 8 * (n + lane / 16) + lane % 8;
        const int d = step * 16 + lane / 8 % 2 * 8;
        const uint4 b = load_matrices<false>(keys + row * KeyTiles<kD>::kStride + d);
        multiply<kF16>(scores[n], q[step], b.x, b.y);
        multiply<kF16>(scores[n + 1], q[step], b.z, b.w);
      }
    }
  }

  __device__ __forceinline__ void mix(const std::uint16_t* values, const float (&p)[kKeys / 8][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int k = 0; k < kKeys / 8; k += 2) {
      const unsigned a[4] = {pack_half<kF16>(p[k][0], p[k][1]), pack_half<kF16>(p[k][2], p[k][3]),
                             pack_half<kF16>(p[k + 1][0], p[k + 1][1]),
                             pack_half<kF16>(p[k + 1][2], p[k + 1][3])};
#pragma unroll
      for (int n = 0; n < kD / 8; n += 2) {
        const int row = 8 * k + lane / 8 % 2 * 8 + lane % 8, d = 8 * (n + lane / 16);
        const uint4 b = load_matrices<true>(values + row * KeyTiles<kD>::kStride + d);
        multiply<kF16>(sums[n], a, b.x, b.y);
        multiply<kF16>(sums[n + 1], a, b.z, b.w);
      }
    }
  }
};

template <bool kF16, int kD>
__global__ void __launch_bounds__(kThreads) attention_kernel(AttentionTask task) {
  using T = KeyTiles<kD>;
  INFINILM_SHARED_MEMORY(memory);
  auto* tiles = reinterpret_cast<std::uint16_t*>(memory);
  let_next_start();
  const Share s = share_of(task, item_of_block());  // of what was uploaded
  wait_for_previous();
  if (s.block_begin >= s.block_end) return;
  const int length = s.sequence.past + s.sequence.rows;
  // One group of copies each time, also of none: waiting counts them.
  const auto ask_for = [&](int b) {
    if (b < s.block_end) T::template fetch<kThreads>(task, s, b, length, tiles);
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < T::kStages; ++i) ask_for(s.block_begin + i);
  Rows<kF16, kD> rows;
  rows.clear(task, s, warp_index() * 16);
  rows.load(task, s, warp_index() * 16);
  const float factor = task.scale * kBitsOfE;
  const int last = position_of(s, s.rows - 1);
  for (int b = s.block_begin; b < s.block_end; ++b) {
    wait_for_copies<T::kStages - 1>();
    __syncthreads();
    const int key = b * kKeys;
    const bool whole =
        s.rows % 16 == 0 && key + kKeys - 1 <= s.position && key >= first_key(last, task.window);
    rows.attend(T::keys(tiles, b), T::values(tiles, b), key, factor, whole);
    __syncthreads();
    ask_for(b + T::kStages);
  }
  rows.gather();
  float* partial = s.splits == 1 ? nullptr : partial_of(task, s.item, kRowsOfTile, s.item.split);
  write_rows(task, s, partial, warp_index() * 16, rows);
  if (partial != nullptr) merge_splits<kRowsOfTile>(task, s);
}

}  // namespace

bool has_tensor_attention(const AttentionShape& shape) {
  const bool halves = shape.kv_dtype == DataType::BF16 || shape.kv_dtype == DataType::F16;
  return halves && shape.head_dim <= 256 && shape.head_dim % 2 == 0;
}

void attend_on_tensor_cores(Context& context, const AttentionTask& task, dim3 grid) {
  for_cache(task.kv, [&]<bool kF16, int kD>() {
    context.launch(attention_kernel<kF16, kD>, grid, kThreads, std::size_t{KeyTiles<kD>::kAll * 2},
                   task);
  });
}

}  // namespace infinilm::cuda
