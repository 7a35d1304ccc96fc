// Attention in float32, for any head_dim and any format of the cache.
//
//   scores[r, j] = scale q_r k_j; running peak m_r and total l_r; sums[r] += e^(scores - m) v: 64 keys at a time, keys and then
//   values as float32 in one piece of shared memory. 16 rows a tile, 8 threads a row.
#include "cuda/attention.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kScoreStride = kKeys + 4;

struct Memory {
  float* q;       // [16][padded]
  float* block;   // [64][padded + 4]: keys, then values
  float* scores;  // [16][kScoreStride]
  float* peak;    // [16]
  float* total;
  float* shrink;  // what sums so far are multiplied with
};

__device__ Memory memory_at(unsigned char* memory, int padded) {
  auto* p = reinterpret_cast<float*>(memory);
  Memory m;
  m.q = p;
  m.block = m.q + kFloatRows * padded;
  m.scores = m.block + kKeys * (padded + 4);
  m.peak = m.scores + kFloatRows * kScoreStride;
  m.total = m.peak + kFloatRows;
  m.shrink = m.total + kFloatRows;
  return m;
}
int shared_bytes(int padded) {
  return 4 * (kFloatRows * padded + kKeys * (padded + 4) + kFloatRows * (kScoreStride + 3));
}

// A head's keys or values as float32. What lies behind the last token may be anything: it is masked, or multiplied with 0, and so
// must be finite.
__device__ void widen_block(const KvView& kv, const std::byte* head, int tokens, bool scaled,
                            float* to) {
  const int stride = kv.padded + 4;
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kv.padded; i += kThreads) {
    const int token = i / kv.padded, d = i % kv.padded;
    float value = 0.0f;
    if (token < tokens) {
      value = element_of(kv, head, token, d);
      if (scaled) value *= scale_of(kv, head, token);
    }
    to[token * stride + d] = value;
  }
}

__device__ __forceinline__ float dot4(const float4& a, const float4& b, float sum) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  return fmaf(a.w, b.w, sum);
}

// A thread has one key and half of the rows.
__device__ void score_block(const AttentionTask& task, const Share& s, const Memory& m, int first) {
  constexpr int kPer = kFloatRows / 2;
  const int key = static_cast<int>(threadIdx.x) % kKeys;
  const int begin = static_cast<int>(threadIdx.x) / kKeys * kPer, padded = task.kv.padded;
  const float* k = m.block + key * (padded + 4);
  float sums[kPer] = {};
  for (int d = 0; d < padded; d += 4) {
    const float4 keys = *reinterpret_cast<const float4*>(k + d);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      sums[i] =
          dot4(*reinterpret_cast<const float4*>(m.q + (begin + i) * padded + d), keys, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int r = begin + i;
    const bool seen = r < s.rows && sees(task, position_of(s, r), first + key);
    m.scores[r * kScoreStride + key] = seen ? sums[i] * task.scale : kMinusInfinity;
  }
}

// A warp has four rows.
__device__ void weigh_block(const Memory& m) {
  for (int r = warp_index() * 4; r < warp_index() * 4 + 4; ++r) {
    float* scores = m.scores + r * kScoreStride;
    const float a = scores[lane_index()], b = scores[lane_index() + 32];
    const float before = m.peak[r], peak = fmaxf(before, warp_max(fmaxf(a, b)));
    // A row that has seen nothing yet keeps its zeros.
    const float base = peak == kMinusInfinity ? 0.0f : peak;
    const float x = power(a - base), y = power(b - base);
    const float sum = warp_sum(x + y);
    scores[lane_index()] = x;
    scores[lane_index() + 32] = y;
    __syncwarp();  // all have read the peak
    if (lane_index() == 0) {
      const float shrink = power(before - base);
      m.shrink[r] = shrink;
      m.total[r] = m.total[r] * shrink + sum;
      m.peak[r] = peak;
    }
  }
}

// kFours: quadruples of columns that a thread has.
template <int kFours>
__global__ void __launch_bounds__(kThreads) attention_kernel(AttentionTask task) {
  INFINILM_SHARED_MEMORY(bytes);
  let_next_start();
  const Share s = share_of(task, item_of_block());  // of what was uploaded
  wait_for_previous();
  if (s.block_begin >= s.block_end) return;
  const int padded = task.kv.padded, thread = static_cast<int>(threadIdx.x);
  const Memory m = memory_at(bytes, padded);
  for (int i = thread; i < kFloatRows * padded; i += kThreads) {
    const int r = i / padded, d = i % padded;
    const bool inside = r < s.rows && d < task.kv.head_dim;
    m.q[i] = inside ? task.q[row_of(s, r) * task.q_stride + column_of(task, s, r) + d] : 0.0f;
  }
  if (thread < kFloatRows) {
    m.peak[thread] = kMinusInfinity;
    m.total[thread] = 0.0f;
  }
  const int row = thread / 8, column = thread % 8 * 4;
  float sums[kFours][4] = {};
  const int length = s.sequence.past + s.sequence.rows;
  const bool scaled = task.kv.dtype == DataType::I8;
  for (int b = s.block_begin; b < s.block_end; ++b) {
    const std::byte* block = task.sequences.blocks[s.sequence.first_block + b];
    const int first = b * kKeys, tokens = min(kKeys, length - first);
    __syncthreads();
    widen_block(task.kv, keys_of(task.kv, block, s.kv_head), tokens, scaled, m.block);
    __syncthreads();
    score_block(task, s, m, first);
    __syncthreads();
    weigh_block(m);
    widen_block(task.kv, values_of(task.kv, block, s.kv_head), tokens, scaled, m.block);
    __syncthreads();
    const float shrink = m.shrink[row];
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] *= shrink;
    }
    for (int key = 0; key < tokens; ++key) {
      const float weight = m.scores[row * kScoreStride + key];
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        const int d = column + i * 32;
        if (d >= padded) break;
        const float4 v = *reinterpret_cast<const float4*>(m.block + key * (padded + 4) + d);
        sums[i][0] = fmaf(weight, v.x, sums[i][0]);
        sums[i][1] = fmaf(weight, v.y, sums[i][1]);
        sums[i][2] = fmaf(weight, v.z, sums[i][2]);
        sums[i][3] = fmaf(weight, v.w, sums[i][3]);
      }
    }
  }
  __syncthreads();
  const bool alone = s.splits == 1;
  float* partial = alone ? nullptr : partial_of(task, s.item, kFloatRows, s.item.split);
  if (row < s.rows) {
    float* to = alone ? task.y + row_of(s, row) * task.y_stride + column_of(task, s, row)
                      : partial + row * partial_stride(padded) + kPartialHead;
    const int columns = alone ? task.kv.head_dim : padded;
    const float factor = alone ? 1.0f / m.total[row] : 1.0f;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      for (int j = 0; j < 4; ++j) {
        const int d = column + i * 32 + j;
        if (d < columns) to[d] = sums[i][j] * factor;
      }
    }
    if (!alone && thread % 8 == 0) {
      partial[row * partial_stride(padded)] = m.peak[row];
      partial[row * partial_stride(padded) + 1] = m.total[row];
    }
  }
  if (!alone) merge_splits<kFloatRows>(task, s);
}

}  // namespace

void attend_in_floats(Context& context, const AttentionTask& task, dim3 grid) {
  const int padded = task.kv.padded;
  const auto shared = static_cast<std::size_t>(shared_bytes(padded));
  const auto kernel = padded <= 64    ? attention_kernel<2>
                      : padded <= 128 ? attention_kernel<4>
                      : padded <= 256 ? attention_kernel<8>
                                      : attention_kernel<16>;
  context.launch(kernel, grid, kThreads, shared, task);
}

}  // namespace infinilm::cuda
