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
  int q_heads, kv_heads;  // that something is done with
  bool rotate;
  Sequences sequences;
  KvView kv;
  RoundedQueries rounded;
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

// A head, by a warp, `begin` elements behind `head`.
__device__ void write(const KvView& kv, const float* x, std::byte* head, std::int64_t begin,
                      float scale) {
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
// A token's.
__device__ void write_token(const KvView& kv, const float* x, std::byte* head, int token) {
  const std::int64_t begin = static_cast<std::int64_t>(token) * kv.padded;
  float scale = 1.0f;
  if (kv.dtype == DataType::I8) {
    scale = int8_scale(x, kv.head_dim);
    if (lane_index() == 0) reinterpret_cast<float*>(head + kKeys * kv.padded)[token] = scale;
  }
  write(kv, x, head, begin, scale);
}

// Where a row's token goes.
struct Target {
  std::byte* block = nullptr;  // null: nowhere
  int token = 0;

  __device__ Target(const Store& s, int row) {
    const int index = sequence_of(s.sequences, row);
    if (index < 0) return;
    const SequenceInfo sequence = s.sequences.info[index];
    const int position = sequence.past + row - sequence.row_begin;
    block = s.sequences.blocks[sequence.first_block + position / kKeys];
    token = position % kKeys;
  }
  // Of the heads of k, then of v.
  __device__ std::byte* head(const KvView& kv, int i) const {
    return block + kv.offset + i * kv.head_bytes;
  }
};

// A warp a head of a token: those of q, then of k, then of v.
__global__ void __launch_bounds__(kThreads) store_kernel(Store s, int row_begin) {
  let_next_start();
  const int row = row_begin + static_cast<int>(blockIdx.y), d = s.kv.head_dim;
  const Target target(s, row);  // by what was uploaded
  wait_for_previous();
  int head = static_cast<int>(blockIdx.x) * (kThreads / 32) + warp_index();
  const float* cos = s.cos + row * s.cos_stride;
  const float* sin = s.sin + row * s.sin_stride;
  if (head < s.q_heads) {
    float* q = s.q + row * s.q_stride + head * d;
    if (s.rotate) rotate(q, cos, sin, d / 2);
    if (s.rounded.data == nullptr) return;
    return write(s.kv, q, reinterpret_cast<std::byte*>(s.rounded.data),
                 row * s.rounded.stride + head * s.kv.padded, 1.0f);
  }
  head -= s.q_heads;
  if (head >= 2 * s.kv_heads || target.block == nullptr) return;
  if (head < s.kv_heads) {
    float* k = s.k + row * s.k_stride + head * d;
    if (s.rotate) rotate(k, cos, sin, d / 2);
    write_token(s.kv, k, target.head(s.kv, head), target.token);
  } else {
    const float* v = s.v + row * s.v_stride + (head - s.kv_heads) * d;
    write_token(s.kv, v, target.head(s.kv, head), target.token);
  }
}

template <bool kF16>
__device__ __forceinline__ void round_four(const float4& v, std::uint16_t* to) {
  *reinterpret_cast<uint2*>(to) = {pack_half<kF16>(v.x, v.y), pack_half<kF16>(v.z, v.w)};
}

// The same to 16 bits, where four can be read at once and q and k need not be kept: a thread four neighbouring columns of each half of a
// head.
template <bool kF16>
__global__ void __launch_bounds__(kThreads) store_fours_kernel(Store s, int row_begin) {
  let_next_start();
  const int row = row_begin + static_cast<int>(blockIdx.y), half = s.kv.head_dim / 2;
  const Target target(s, row);
  wait_for_previous();
  const int quads = half / 4;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int head = i / quads;
  const int d = i % quads * 4;
  const float* x = nullptr;
  std::uint16_t* to = nullptr;
  bool rotates = s.rotate;
  if (head < s.q_heads) {
    x = s.q + row * s.q_stride + head * s.kv.head_dim;
    to = s.rounded.data + row * s.rounded.stride + head * s.kv.padded;
  } else {
    head -= s.q_heads;
    if (head >= 2 * s.kv_heads || target.block == nullptr) return;
    to = reinterpret_cast<std::uint16_t*>(target.head(s.kv, head)) + target.token * s.kv.padded;
    rotates = rotates && head < s.kv_heads;
    x = head < s.kv_heads ? s.k + row * s.k_stride + head * s.kv.head_dim
                          : s.v + row * s.v_stride + (head - s.kv_heads) * s.kv.head_dim;
  }
  float4 a = load_four(x + d), b = load_four(x + half + d);
  if (rotates) {
    const float4 cos = load_four(s.cos + row * s.cos_stride + d);
    const float4 sin = load_four(s.sin + row * s.sin_stride + d);
    const auto turn = [](float& p, float& q, float c, float t) {
      const RotaryPair pair = {p, q, c, t};
      p = pair.first();
      q = pair.second();
    };
    turn(a.x, b.x, cos.x, sin.x);
    turn(a.y, b.y, cos.y, sin.y);
    turn(a.z, b.z, cos.z, sin.z);
    turn(a.w, b.w, cos.w, sin.w);
  }
  round_four<kF16>(a, to + d);
  round_four<kF16>(b, to + half + d);
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

namespace {

// What kv_store and round_queries have in common.
Store store_of(const NewTokens& tokens, const Matrix& q, const Sequences& sequences,
               const KvView& kv) {
  const Rotation& rotation = tokens.rotation;
  Store s{};
  s.q = q.data;
  s.k = tokens.k.data;
  s.v = tokens.v.data;
  s.cos = rotation.cos.data;
  s.sin = rotation.sin.data;
  s.q_stride = q.stride;
  s.k_stride = tokens.k.stride;
  s.v_stride = tokens.v.stride;
  s.cos_stride = rotation.cos.stride;
  s.sin_stride = rotation.sin.stride;
  s.rotate = rotation.is_there();
  s.q_heads = q.rows > 0 ? static_cast<int>(q.cols) / kv.head_dim : 0;
  s.kv_heads = tokens.k.rows > 0 ? kv.kv_heads : 0;
  s.sequences = sequences;
  s.kv = kv;
  return s;
}

// A grid of `columns` threads for each row, at most so many rows at a time.
template <class Kernel>
void launch_rows(Context& context, Kernel kernel, const Store& s, std::int64_t columns,
                 std::int64_t rows) {
  constexpr std::int64_t kMostRows = 65535;  // of a grid's second dimension
  for (std::int64_t first = 0; first < rows; first += kMostRows) {
    const dim3 grid(static_cast<unsigned>((columns + kThreads - 1) / kThreads),
                    static_cast<unsigned>(std::min(kMostRows, rows - first)));
    context.launch(kernel, grid, kThreads, 0, s, static_cast<int>(first));
  }
}

bool can_store_fours(const Store& s) {
  const auto places =
      reinterpret_cast<std::uintptr_t>(s.q) | reinterpret_cast<std::uintptr_t>(s.k) |
      reinterpret_cast<std::uintptr_t>(s.v) | reinterpret_cast<std::uintptr_t>(s.cos) |
      reinterpret_cast<std::uintptr_t>(s.sin);
  const auto strides = s.q_stride | s.k_stride | s.v_stride | s.cos_stride | s.sin_stride;
  return places % 16 == 0 && strides % 4 == 0 && s.kv.head_dim % 8 == 0;
}

}  // namespace

void kv_store(Context& context, const NewTokens& tokens, const Sequences& sequences,
              const KvView& kv) {
  const Store s = store_of(tokens, tokens.rotation.q, sequences, kv);
  const std::int64_t heads = s.q_heads + 2 * s.kv_heads;
  launch_rows(context, store_kernel, s, heads * 32, tokens.k.rows);
}

void round_queries(Context& context, Matrix q, const NewTokens& tokens, const Sequences& sequences,
                   const KvView& kv, const RoundedQueries& to) {
  Store s = store_of(tokens, q, sequences, kv);
  s.rounded = to;
  const std::int64_t heads = s.q_heads + 2 * s.kv_heads;
  if (!can_store_fours(s)) return launch_rows(context, store_kernel, s, heads * 32, q.rows);
  const auto kernel =
      kv.dtype == DataType::F16 ? store_fours_kernel<true> : store_fours_kernel<false>;
  launch_rows(context, kernel, s, heads * (kv.head_dim / 8), q.rows);
}

}  // namespace infinilm::cuda
