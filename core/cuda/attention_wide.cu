// Attention of many query tokens where four warps multiply together (wgmma, Hopper), for a cache of 16-bit floats and a head_dim up to
// 128 (Shah et al. 2024, FlashAttention-3, without its division of warps by their work).
//
//   A block has 128 rows, 64 for each of two groups of four warps, and goes through 64 keys at a time. Scores of one 64 are multiplied
//   while values of the 64 before are added up, and become weights meanwhile:
//     scores [64, 64] = q [64, D] keys [64, D]^T beside sums [64, D] += p [64, 64] values [64, D]
//   Keys and values come two such steps ahead.
#include "cuda/attention_rows.cuh"
#include "cuda/wide_tiles.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kGroups = 2, kGroupThreads = 128, kThreads = kGroups * kGroupThreads;
constexpr int kStages = 4;  // of keys and values: two on their way, one multiplied, one added up

template <int kD>
constexpr int kBytes = (kGroups + kStages * 2) * kTileElements<kD> * 2 + 1024;  // aligned in it

template <int kD>
struct Tiles {
  std::uint16_t* memory;
  __device__ __forceinline__ explicit Tiles(unsigned char* shared) {
    const auto address = reinterpret_cast<std::uintptr_t>(shared);
    memory = reinterpret_cast<std::uint16_t*>(shared + ((address + 1023) / 1024 * 1024 - address));
  }
  __device__ __forceinline__ std::uint16_t* queries(int group) const {
    return memory + group * kTileElements<kD>;
  }
  __device__ __forceinline__ std::uint16_t* keys(int i) const {
    return memory + (kGroups + i % kStages * 2) * kTileElements<kD>;
  }
  __device__ __forceinline__ std::uint16_t* values(int i) const {
    return keys(i) + kTileElements<kD>;
  }
};

// Eight neighbouring floats, from where four can be read at once.
__device__ __forceinline__ void load_eight(const float* from, float (&v)[8]) {
  const float4 a = load_four(from), b = load_four(from + 4);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
template <bool kF16>
__device__ __forceinline__ uint4 rounded_eight(const float (&v)[8]) {
  return make_uint4(pack_half<kF16>(v[0], v[1]), pack_half<kF16>(v[2], v[3]),
                    pack_half<kF16>(v[4], v[5]), pack_half<kF16>(v[6], v[7]));
}

// A group's queries, rotated if that is to be done here, and rounded; zeros around them. Eight columns at once, of both halves of what
// is rotated, where memory is laid out for it: several threads' loads are under way together.
template <bool kF16, int kD>
__device__ __forceinline__ void put_queries(const AttentionTask& task, const Share& s, int first,
                                            std::uint16_t* tile) {
  constexpr int kPieces = kD / 8;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int head_dim = task.kv.head_dim, half = head_dim / 2;
  const auto places = reinterpret_cast<std::uintptr_t>(task.q) |
                      reinterpret_cast<std::uintptr_t>(task.cos) |
                      reinterpret_cast<std::uintptr_t>(task.sin);
  const auto strides = task.q_stride | task.cos_stride | task.sin_stride;
  const bool in_fours = places % 16 == 0 && strides % 4 == 0 && head_dim % 16 == 0;
  const auto head_of = [&](int r) {
    return task.q + row_of(s, first + r) * task.q_stride + column_of(task, s, first + r);
  };
  const auto put = [&](int r, int d, const uint4& v) {
    *reinterpret_cast<uint4*>(place_in_tile(tile, r, d)) = v;
  };
  if (in_fours && task.cos == nullptr) {
#pragma unroll 4
    for (int i = thread; i < kTileOfRows * kPieces; i += kGroupThreads) {
      const int r = i / kPieces, d = i % kPieces * 8;
      float v[8] = {};
      if (first + r < s.rows && d < head_dim) load_eight(head_of(r) + d, v);
      put(r, d, rounded_eight<kF16>(v));
    }
  } else if (in_fours) {
#pragma unroll 4
    for (int i = thread; i < kTileOfRows * (kPieces / 2); i += kGroupThreads) {
      const int r = i / (kPieces / 2), d = i % (kPieces / 2) * 8;
      float a[8] = {}, b[8] = {};
      if (first + r < s.rows && d < half) {
        const std::int64_t row = row_of(s, first + r);
        float cos[8], sin[8];
        load_eight(head_of(r) + d, a);
        load_eight(head_of(r) + half + d, b);
        load_eight(task.cos + row * task.cos_stride + d, cos);
        load_eight(task.sin + row * task.sin_stride + d, sin);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const RotaryPair pair = {a[k], b[k], cos[k], sin[k]};
          a[k] = pair.first();
          b[k] = pair.second();
        }
      }
      // Behind the halves, where these do not fill the tile, lie as many zeros.
      put(r, d < half ? d : half + d, rounded_eight<kF16>(a));
      put(r, d < half ? half + d : kD / 2 + d, rounded_eight<kF16>(b));
    }
  } else {
    for (int i = thread; i < kTileOfRows * kD; i += kGroupThreads) {
      const int r = i / kD, d = i % kD;
      const bool inside = first + r < s.rows;
      const float x = inside ? query_of(task, row_of(s, first + r), head_of(r), d) : 0.0f;
      place_in_tile(tile, r, d / 8 * 8)[d % 8] = to_half<kF16>(x);
    }
  }
}

template <bool kF16>
__device__ __forceinline__ void pack_weights(const float (&p)[8][4], unsigned (&packed)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float (&of)[4] = p[2 * k + i / 2];
      packed[k][i] = pack_half<kF16>(of[i % 2 * 2], of[i % 2 * 2 + 1]);
    }
  }
}

template <bool kF16, int kD>
__global__ void __launch_bounds__(kThreads, kD == 64 ? 2 : 1)
    attention_wide_kernel(const __grid_constant__ AttentionTask task) {
  INFINILM_SHARED_MEMORY(memory);
  const Tiles<kD> tiles(memory);
  let_next_start();
  const Share s = share_of(task);
  wait_for_previous();
  if (s.block_begin >= s.block_end) return;
  const int length = s.sequence.past + s.sequence.rows, count = s.block_end - s.block_begin;
  const auto ask_for = [&](int i) {
    if (i < count) {
      fetch_block<kD, kThreads>(task, s, s.block_begin + i, length, tiles.keys(i), tiles.values(i),
                                place_in_tile);
    }
    commit_copies();
  };
  ask_for(0);
  ask_for(1);
  const int group = __shfl_sync(kAll, warp_index(), 0) / 4, first = group * kTileOfRows;
  put_queries<kF16, kD>(task, s, first, tiles.queries(group));
  const int lowest = position_of(s, first);
  const int highest = position_of(s, min(s.rows, first + kTileOfRows) - 1);
  // Of the 64 keys that come, those that a row of this group sees. One at least: of a row that is not there, nothing is written.
  const int mine = min(count, max(1, highest / kKeys + 1 - s.block_begin));
  const float factor = task.scale * kBitsOfE;

  RowState<kD> rows;
  rows.clear(task, s, first + warp_index() % 4 * 16);
  unsigned weights[4][4];
  // The next keys and values are there, and those three before them are not needed any more. What asks for more comes when there is
  // something to multiply meanwhile: it has to look up where to.
  const auto arrive = [&] {
    wait_for_copies<1>();
    show_to_tensor_cores();
    __syncthreads();
  };
  const auto weigh = [&](float (&scores)[8][4], int i) {
    const int key = (s.block_begin + i) * kKeys;
    const bool whole = key + kKeys - 1 <= lowest && key >= first_key(highest, task.window);
    if (!whole) rows.template mask<8>(key, scores);
    rows.template weigh<8>(scores, factor);
  };
  arrive();
  {
    float scores[8][4] = {};
    begin_wide();
    multiply_tiles<kF16, kD>(scores, tiles.queries(group), tiles.keys(0));
    commit_wide();
    ask_for(2);
    end_wide(scores);
    weigh(scores, 0);
    pack_weights<kF16>(scores, weights);
  }
  for (int i = 1; i < mine; ++i) {
    arrive();
    float scores[8][4] = {};
    begin_wide();
    multiply_tiles<kF16, kD>(scores, tiles.queries(group), tiles.keys(i));
    commit_wide();
    multiply_rows<kF16, kD>(rows.sums, weights, tiles.values(i - 1));
    commit_wide();
    ask_for(i + 2);
    end_wide<1>(scores);
    weigh(scores, i);
    end_wide(rows.sums);
    rows.shrink();
    pack_weights<kF16>(scores, weights);
  }
  begin_wide();
  multiply_rows<kF16, kD>(rows.sums, weights, tiles.values(mine - 1));
  commit_wide();
  end_wide(rows.sums);
  for (int i = mine; i < count; ++i) {
    arrive();
    ask_for(i + 2);
  }

  rows.gather();
  constexpr int kRowsOfBlock = kGroups * kTileOfRows;
  float* partial =
      s.splits == 1 ? nullptr : partial_of(task, kRowsOfBlock, static_cast<int>(blockIdx.y));
  write_rows(task, s, partial, first + warp_index() % 4 * 16, rows);
  if (partial != nullptr) merge_splits<kRowsOfBlock>(task, s);
}

template <bool kF16>
void launch(Context& context, const AttentionTask& task, dim3 grid) {
  const bool narrow = task.kv.padded <= 64;
  const auto kernel = narrow ? attention_wide_kernel<kF16, 64> : attention_wide_kernel<kF16, 128>;
  context.launch(kernel, grid, kThreads,
                 static_cast<std::size_t>(narrow ? kBytes<64> : kBytes<128>), task);
}

}  // namespace

bool has_wide_attention(const Context& context, const AttentionShape& shape) {
  return context.has_wide_products() && has_tensor_attention(shape) && shape.head_dim > 32 &&
         shape.head_dim <= 128;
}

void attend_wide(Context& context, const AttentionTask& task, dim3 grid) {
  if (task.kv.dtype == DataType::F16) {
    launch<true>(context, task, grid);
  } else {
    launch<false>(context, task, grid);
  }
}

}  // namespace infinilm::cuda
