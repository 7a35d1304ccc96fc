// Rotation and the way into the cache.
#include <algorithm>

#include "cuda/kv.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 256;

struct Store {
  float* q;
  float* k;
  const float* v;
  const float* cos;
  const float* sin;
  std::int64_t q_stride, k_stride, v_stride, cos_stride, sin_stride;
  int q_heads;
  bool rotate;
  Sequences sequences;
  KvView kv;
};

__device__ void rotate(float* x, const float* cos, const float* sin, int half) {
  for (int i = lane_index(); i < half; i += 32) {
    const RotaryPair pair = {x[i], x[i + half], cos[i], sin[i]};
    x[i] = pair.first();
    x[i + half] = pair.second();
  }
  __syncwarp();  // other lanes read what this one wrote
}

// Largest magnitude / 127; NaN if x has infinities or NaN.
__device__ float int8_scale(const float* x, int n) {
  float peak = 0.0f, spoilt = 0.0f;
  for (int i = lane_index(); i < n; i += 32) {
    peak = fmaxf(peak, fabsf(x[i]));
    spoilt += x[i] * 0.0f;
  }
  return warp_max(peak) / 127.0f + warp_sum(spoilt);
}

__device__ std::int8_t int8_of(float x, float scale) {
  if (!(scale > 0.0f)) return 0;  // also a token that has no numbers
  return static_cast<std::int8_t>(fminf(127.0f, fmaxf(-127.0f, rintf(x / scale))));
}

// A token's head, by a warp.
__device__ void write(const KvView& kv, const float* x, std::byte* head, int token) {
  const std::int64_t begin = static_cast<std::int64_t>(token) * kv.padded;
  float scale = 1.0f;
  if (kv.dtype == DataType::I8) {
    scale = int8_scale(x, kv.head_dim);
    if (lane_index() == 0) reinterpret_cast<float*>(head + kKeys * kv.padded)[token] = scale;
  }
  for (int d = lane_index(); d < kv.padded; d += 32) {
    const float value = d < kv.head_dim ? x[d] : 0.0f;
    switch (kv.dtype) {
      case DataType::F32:
        reinterpret_cast<float*>(head)[begin + d] = value;
        break;
      case DataType::BF16:
        reinterpret_cast<std::uint16_t*>(head)[begin + d] = to_half<false>(value);
        break;
      case DataType::F16:
        reinterpret_cast<std::uint16_t*>(head)[begin + d] = to_half<true>(value);
        break;
      default:
        reinterpret_cast<std::int8_t*>(head)[begin + d] = int8_of(value, scale);
    }
  }
}

// A warp a head of a token: those of q, then of k, then of v.
__global__ void __launch_bounds__(kThreads) store_kernel(Store s, int row_begin) {
  let_next_start();
  const int row = row_begin + static_cast<int>(blockIdx.y), d = s.kv.head_dim;
  // Where the token goes, in what was uploaded.
  const int index = sequence_of(s.sequences, row);
  const SequenceInfo sequence = index < 0 ? SequenceInfo{} : s.sequences.info[index];
  const int position = sequence.past + row - sequence.row_begin;
  std::byte* block =
      index < 0 ? nullptr : s.sequences.blocks[sequence.first_block + position / kKeys];
  wait_for_previous();
  int head = static_cast<int>(blockIdx.x) * (kThreads / 32) + warp_index();
  const float* cos = s.cos + row * s.cos_stride;
  const float* sin = s.sin + row * s.sin_stride;
  if (head < s.q_heads) return rotate(s.q + row * s.q_stride + head * d, cos, sin, d / 2);
  head -= s.q_heads;
  if (head >= 2 * s.kv.kv_heads || index < 0) return;

  auto* target = block + s.kv.offset + head * s.kv.head_bytes;  // heads of k, then of v
  if (head < s.kv.kv_heads) {
    float* k = s.k + row * s.k_stride + head * d;
    if (s.rotate) rotate(k, cos, sin, d / 2);
    write(s.kv, k, target, position % kKeys);
  } else {
    write(s.kv, s.v + row * s.v_stride + (head - s.kv.kv_heads) * d, target, position % kKeys);
  }
}

std::int64_t size_in_cache(DataType dtype) {
  switch (dtype) {
    case DataType::F32:
      return 4;
    case DataType::BF16:
    case DataType::F16:
      return 2;
    case DataType::I8:
      return 1;
    default:
      throw ValueError(
          concat("kv_cache_dtype: expected float32, bfloat16, float16 or int8 on CUDA, found ",
                 name_of(dtype)));
  }
}

}  // namespace

KvView kv_view(std::int64_t kv_heads, std::int64_t head_dim, DataType dtype) {
  const std::int64_t size = size_in_cache(dtype);
  check(head_dim <= kMostHeadDim, "head_dim: expected at most ", kMostHeadDim, " on CUDA, found ",
        head_dim);
  KvView kv;
  kv.kv_heads = static_cast<int>(kv_heads);
  kv.head_dim = static_cast<int>(head_dim);
  kv.padded = static_cast<int>((head_dim + 7) / 8 * 8);
  kv.dtype = dtype;
  kv.head_bytes = kKeys * kv.padded * size + (dtype == DataType::I8 ? kKeys * 4 : 0);
  return kv;
}

KvView kv_view(const AttentionShape& shape) {
  KvView kv = kv_view(shape.kv_heads, shape.head_dim, shape.kv_dtype);
  kv.offset = static_cast<std::int64_t>(shape.kv_offset);
  return kv;
}

void kv_store(Context& context, const NewTokens& tokens, const Sequences& sequences,
              const KvView& kv) {
  const Matrix &k = tokens.k, &v = tokens.v;
  const Rotation& rotation = tokens.rotation;
  Store s{};
  s.q = rotation.q.data;
  s.k = k.data;
  s.v = v.data;
  s.cos = rotation.cos.data;
  s.sin = rotation.sin.data;
  s.q_stride = rotation.q.stride;
  s.k_stride = k.stride;
  s.v_stride = v.stride;
  s.cos_stride = rotation.cos.stride;
  s.sin_stride = rotation.sin.stride;
  s.rotate = rotation.is_there();
  s.q_heads = rotation.q.rows > 0 ? static_cast<int>(rotation.q.cols) / kv.head_dim : 0;
  s.sequences = sequences;
  s.kv = kv;
  constexpr std::int64_t kMostRows = 65535;  // of a grid's second dimension
  const int heads = s.q_heads + 2 * kv.kv_heads, per_block = kThreads / 32;
  for (std::int64_t first = 0; first < k.rows; first += kMostRows) {
    const dim3 grid(static_cast<unsigned>((heads + per_block - 1) / per_block),
                    static_cast<unsigned>(std::min(kMostRows, k.rows - first)));
    context.launch(store_kernel, grid, kThreads, 0, s, static_cast<int>(first));
  }
}

}  // namespace infinilm::cuda
