#include "cuda/rows.hpp"

#include <algorithm>

#include "cuda/device.cuh"

namespace infinilm::cuda {
namespace {

// A matrix as kernels take it.
struct Rows {
  float* data;
  std::int64_t stride;
  int rows, cols;

  __device__ float* row(int r) const { return data + r * stride; }
};

Rows rows_of(Matrix m) {
  return {m.data, m.stride, static_cast<int>(m.rows), static_cast<int>(m.cols)};
}

constexpr int kThreads = 256;

// Elements of four that a row of all matrices can be read in.
bool in_fours(std::initializer_list<Matrix> matrices) {
  return std::all_of(matrices.begin(), matrices.end(), [](const Matrix& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.stride % 4 == 0 &&
           m.cols % 4 == 0;
  });
}

// One block a row; kFours: elements four at a time.
template <bool kF16, bool kFours>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(Rows x, const float* w, float eps, float* y, std::int64_t y_stride,
                    std::uint16_t* rounded, std::int64_t rounded_stride) {
  let_next_start();
  wait_for_previous();
  constexpr int kPer = kFours ? 4 : 1;
  const int r = static_cast<int>(blockIdx.x), begin = static_cast<int>(threadIdx.x) * kPer;
  const float* from = x.row(r);
  float sum = 0.0f;
#pragma unroll 4
  for (int i = begin; i < x.cols; i += kThreads * kPer) {
    if constexpr (kFours) {
      const float4 v = load_four(from + i);
      sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
    } else {
      sum = fmaf(from[i], from[i], sum);
    }
  }
  const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(x.cols) + eps);
#pragma unroll 4
  for (int i = begin; i < x.cols; i += kThreads * kPer) {
    if constexpr (kFours) {
      const float4 v = load_four(from + i), u = load_four(w + i);
      const float4 n =
          make_float4(v.x * scale * u.x, v.y * scale * u.y, v.z * scale * u.z, v.w * scale * u.w);
      if (y != nullptr) *reinterpret_cast<float4*>(y + r * y_stride + i) = n;
      if (rounded != nullptr) {
        *reinterpret_cast<uint2*>(rounded + r * rounded_stride + i) = {pack_half<kF16>(n.x, n.y),
                                                                       pack_half<kF16>(n.z, n.w)};
      }
    } else {
      const float value = from[i] * scale * w[i];
      if (y != nullptr) y[r * y_stride + i] = value;
      if (rounded != nullptr) rounded[r * rounded_stride + i] = to_half<kF16>(value);
    }
  }
  if (rounded == nullptr) return;
  for (auto i = static_cast<std::int64_t>(x.cols) + static_cast<int>(threadIdx.x);
       i < rounded_stride; i += kThreads) {
    rounded[r * rounded_stride + i] = 0;
  }
}

// Of float32, or of bfloat16.
__device__ float read_one(const float* p) { return *p; }
__device__ float read_one(const std::uint16_t* p) { return bf16_to_float(*p); }
__device__ float4 read_four(const float* p) { return load_four(p); }
__device__ float4 read_four(const std::uint16_t* p) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  return make_float4(low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y));
}

// What an element of y becomes; `four`: four neighbours at once, where all memory allows it.
template <class Item>
struct ActMul {
  const Item* gate;
  const Item* up;
  std::int64_t gate_stride, up_stride;
  int act;
  __device__ float operator()(int r, int i, float) const {
    return activate(read_one(gate + r * gate_stride + i), act) * read_one(up + r * up_stride + i);
  }
  __device__ float4 four(int r, int i, const float4&) const {
    const float4 g = read_four(gate + r * gate_stride + i), u = read_four(up + r * up_stride + i);
    return make_float4(activate(g.x, act) * u.x, activate(g.y, act) * u.y, activate(g.z, act) * u.z,
                       activate(g.w, act) * u.w);
  }
};
struct Add {
  const float* x;
  std::int64_t stride;
  __device__ float operator()(int r, int i, float y) const { return y + x[r * stride + i]; }
  __device__ float4 four(int r, int i, const float4& y) const {
    const float4 v = load_four(x + r * stride + i);
    return make_float4(y.x + v.x, y.y + v.y, y.z + v.z, y.w + v.w);
  }
};
struct Copy {
  const float* x;
  std::int64_t stride;
  __device__ float operator()(int r, int i, float) const { return x[r * stride + i]; }
  __device__ float4 four(int r, int i, const float4&) const {
    return load_four(x + r * stride + i);
  }
};
struct Gather {
  const float* x;
  std::int64_t stride;
  const std::int32_t* order;
  __device__ float operator()(int r, int i, float) const { return x[r * stride + order[i]]; }
  __device__ float4 four(int r, int i, const float4&) const {
    const float* row = x + r * stride;
    return make_float4(row[order[i]], row[order[i + 1]], row[order[i + 2]], row[order[i + 3]]);
  }
};

// Four elements a thread, rounded; into y too if that is not null.
template <bool kF16, bool kFours, class F>
__global__ void __launch_bounds__(kThreads)
    round_kernel(F f, Rows y, std::uint16_t* rounded, std::int64_t stride) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.y);
  const int i = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * 4;
  if (i >= stride) return;
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if constexpr (kFours) {
    if (i < y.cols) {
      v = f.four(r, i, v);
      if (y.data != nullptr) *reinterpret_cast<float4*>(y.row(r) + i) = v;
    }
  } else {
    const auto one = [&](int k) {
      if (k >= y.cols) return 0.0f;
      const float value = f(r, k, 0.0f);
      if (y.data != nullptr) y.row(r)[k] = value;
      return value;
    };
    v = make_float4(one(i), one(i + 1), one(i + 2), one(i + 3));
  }
  *reinterpret_cast<uint2*>(rounded + r * stride + i) = {pack_half<kF16>(v.x, v.y),
                                                         pack_half<kF16>(v.z, v.w)};
}

// y[r, i] = f(r, i, y[r, i]); kPer neighbouring elements a thread.
template <int kPer, bool kReads, class F>
__global__ void __launch_bounds__(kThreads) map_kernel(Rows y, F f) {
  let_next_start();
  wait_for_previous();
  const int i = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * kPer;
  const int r = static_cast<int>(blockIdx.y);
  if (i >= y.cols) return;
  float* to = y.row(r) + i;
  if constexpr (kPer == 4) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if constexpr (kReads) v = *reinterpret_cast<const float4*>(to);
    *reinterpret_cast<float4*>(to) = f.four(r, i, v);
  } else {
    *to = f(r, i, kReads ? *to : 0.0f);
  }
}

// Rows in slabs that a grid's second dimension can have; calls launch(first, count).
template <class Launch>
void for_slabs(std::int64_t rows, Launch launch) {
  constexpr std::int64_t kMost = 65535;
  for (std::int64_t first = 0; first < rows; first += kMost) {
    launch(first, std::min(kMost, rows - first));
  }
}

unsigned blocks_for(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// `make(first)`: f for rows counted from there.
template <bool kReads, class Make>
void map(Context& context, Matrix y, bool fours, Make make) {
  for_slabs(y.rows, [&](std::int64_t first, std::int64_t count) {
    const Rows rows = rows_of(y.slice(first, count));
    const auto f = make(first);
    using F = decltype(make(first));
    if (fours) {
      const dim3 grid(blocks_for(y.cols, kThreads * 4), static_cast<unsigned>(count));
      context.launch(map_kernel<4, kReads, F>, grid, kThreads, 0, rows, f);
    } else {
      const dim3 grid(blocks_for(y.cols, kThreads), static_cast<unsigned>(count));
      context.launch(map_kernel<1, kReads, F>, grid, kThreads, 0, rows, f);
    }
  });
}

// The same, rounded; y of no memory is left out.
template <class Make>
void round(Context& context, Matrix y, bool fours, std::uint16_t* rounded, std::int64_t stride,
           DataType type, Make make) {
  for_slabs(y.rows, [&](std::int64_t first, std::int64_t count) {
    Matrix out = y;
    if (y.data != nullptr) out = y.slice(first, count);
    const auto f = make(first);
    using F = decltype(make(first));
    const bool f16 = type == DataType::F16;
    const auto kernel = fours
                            ? (f16 ? round_kernel<true, true, F> : round_kernel<false, true, F>)
                            : (f16 ? round_kernel<true, false, F> : round_kernel<false, false, F>);
    const dim3 grid(blocks_for(stride, kThreads * 4), static_cast<unsigned>(count));
    context.launch(kernel, grid, kThreads, 0, f, rows_of(out), rounded + first * stride, stride);
  });
}

struct Copied {
  Rows from, to;
  bool fours;
};
constexpr int kMostCopies = 64;
struct Copies {
  Copied list[kMostCopies];
};
static_assert(sizeof(Copies) <= 4096, "of a kernel's parameters");
// Of one matrix: enough to keep the memory busy where matrices are large.
constexpr unsigned kMostCopyBlocks = 256;

__global__ void __launch_bounds__(kThreads)
    copy_each_kernel(const __grid_constant__ Copies copies) {
  let_next_start();
  wait_for_previous();
  const Copied& c = copies.list[blockIdx.y];
  const int per = c.fours ? 4 : 1;
  const std::int64_t in_row = c.to.cols / per, end = in_row * c.to.rows;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (auto i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < end;
       i += step) {
    const int r = static_cast<int>(i / in_row), column = static_cast<int>(i % in_row) * per;
    const float* from = c.from.row(r) + column;
    float* to = c.to.row(r) + column;
    if (c.fours) {
      *reinterpret_cast<float4*>(to) = load_four(from);
    } else {
      *to = *from;
    }
  }
}

// A warp a head: (a, b) -> (a cos - b sin, b cos + a sin).
__global__ void __launch_bounds__(kThreads) rope_kernel(Rows x, int head_dim, Rows cos, Rows sin) {
  let_next_start();
  wait_for_previous();
  const int heads = x.cols / head_dim, half = head_dim / 2;
  const int head = static_cast<int>(blockIdx.x) * (kThreads / 32) + warp_index();
  const int r = static_cast<int>(blockIdx.y);
  if (head >= heads) return;
  float* p = x.row(r) + head * head_dim;
  for (int i = lane_index(); i < half; i += 32) {
    const RotaryPair pair = {p[i], p[i + half], cos.row(r)[i], sin.row(r)[i]};
    p[i] = pair.first();
    p[i + half] = pair.second();
  }
}

__global__ void __launch_bounds__(kThreads) softmax_kernel(Rows x) {
  let_next_start();
  wait_for_previous();
  float* p = x.row(static_cast<int>(blockIdx.x));
  const int begin = static_cast<int>(threadIdx.x);
  float peak = kMinusInfinity;
  for (int i = begin; i < x.cols; i += kThreads) peak = fmaxf(peak, p[i]);
  peak = block_max(peak);
  if (peak == kMinusInfinity) {
    for (int i = begin; i < x.cols; i += kThreads) p[i] = 0.0f;
    return;
  }
  float total = 0.0f;
  for (int i = begin; i < x.cols; i += kThreads) {
    const float e = expf(p[i] - peak);
    total += e;
    p[i] = e;
  }
  total = block_sum(total);
  for (int i = begin; i < x.cols; i += kThreads) p[i] /= total;
}

struct Candidate {
  float value;
  int index;
};
// NaN is largest, then the larger value, then the smaller index.
__device__ bool beats(const Candidate& a, const Candidate& b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan;
  if (!a_nan && a.value != b.value) return a.value > b.value;
  return a.index < b.index;
}
__device__ Candidate best_of_warp(Candidate mine) {
  for (int mask = 16; mask > 0; mask /= 2) {
    Candidate other;
    other.value = __shfl_xor_sync(kAll, mine.value, mask);
    other.index = __shfl_xor_sync(kAll, mine.index, mask);
    if (beats(other, mine)) mine = other;
  }
  return mine;
}

// The best of a block; in its first thread.
__device__ Candidate best_of_block(Candidate mine) {
  __shared__ Candidate bests[kThreads / 32];
  mine = best_of_warp(mine);
  if (lane_index() == 0) bests[warp_index()] = mine;
  __syncthreads();
  if (warp_index() != 0) return mine;
  return best_of_warp(bests[lane_index() % (kThreads / 32)]);
}

constexpr int kArgmaxBlocks = 64;  // of a row

__global__ void __launch_bounds__(kThreads) argmax_kernel(Rows x, Candidate* bests) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.y);
  Candidate mine = {kMinusInfinity, x.cols - 1};
#pragma unroll 4
  for (int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); i < x.cols;
       i += kArgmaxBlocks * kThreads) {
    const Candidate c = {x.row(r)[i], i};
    if (beats(c, mine)) mine = c;
  }
  mine = best_of_block(mine);
  if (threadIdx.x == 0) bests[r * kArgmaxBlocks + static_cast<int>(blockIdx.x)] = mine;
}

__global__ void __launch_bounds__(kThreads)
    argmax_last_kernel(const Candidate* bests, Found found) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.x);
  const Candidate best =
      best_of_block(bests[r * kArgmaxBlocks + static_cast<int>(threadIdx.x) % kArgmaxBlocks]);
  if (threadIdx.x != 0) return;
  found.rows[r] = {best.index, best.value};
  if (found.columns != nullptr) found.columns[r] = best.index;
}

}  // namespace

void rms_norm(Context& context, Matrix x, const float* w, float eps, Matrix y,
              std::uint16_t* rounded, std::int64_t rounded_stride, DataType type) {
  const Matrix weights = {const_cast<float*>(w), 1, x.cols, x.cols};
  const bool fours = in_fours({x, weights, y.data == nullptr ? x : y}) &&
                     reinterpret_cast<std::uintptr_t>(rounded) % 8 == 0 && rounded_stride % 4 == 0;
  const bool f16 = type == DataType::F16;
  const auto kernel = fours ? (f16 ? rms_norm_kernel<true, true> : rms_norm_kernel<false, true>)
                            : (f16 ? rms_norm_kernel<true, false> : rms_norm_kernel<false, false>);
  context.launch(kernel, dim3(static_cast<unsigned>(x.rows)), kThreads, 0, rows_of(x), w, eps,
                 y.data, y.stride, rounded, rounded_stride);
}

void round_rows(Context& context, Matrix x, std::uint16_t* rounded, std::int64_t stride,
                DataType type) {
  round(context, {nullptr, x.rows, x.cols, 0}, in_fours({x}), rounded, stride, type,
        [&](std::int64_t first) { return Copy{x.row(first), x.stride}; });
}

namespace {

// Calls with_item(Item()) for the type of gate and up.
template <class WithItem>
void for_item(DataType type, WithItem with_item) {
  type == DataType::F32 ? with_item(float()) : with_item(std::uint16_t());
}

// Of the rows from `first` on.
template <class Item>
ActMul<Item> act_mul_of(const GateUp& from, HiddenAct act, std::int64_t first) {
  return {static_cast<const Item*>(from.gate) + first * from.gate_stride,
          static_cast<const Item*>(from.up) + first * from.up_stride, from.gate_stride,
          from.up_stride, static_cast<int>(act)};
}

bool in_fours(const GateUp& from) {
  const auto fits = [&](const void* data, std::int64_t stride) {
    const std::size_t four = from.type == DataType::F32 ? 16 : 8;
    return reinterpret_cast<std::uintptr_t>(data) % four == 0 && stride % 4 == 0;
  };
  return from.cols % 4 == 0 && fits(from.gate, from.gate_stride) && fits(from.up, from.up_stride);
}

}  // namespace

GateUp gate_up_of(const Matrix& gate, const Matrix& up) {
  return {gate.data, up.data, gate.stride, up.stride, gate.rows, gate.cols, DataType::F32};
}

void act_mul(Context& context, const GateUp& from, HiddenAct act, Matrix y) {
  for_item(from.type, [&](auto item) {
    map<false>(context, y, in_fours(from) && in_fours({y}),
               [&](std::int64_t first) { return act_mul_of<decltype(item)>(from, act, first); });
  });
}

void act_mul(Context& context, const GateUp& from, HiddenAct act, Matrix y, std::uint16_t* rounded,
             std::int64_t stride, DataType type) {
  const bool fours = in_fours(from) && (y.data == nullptr || in_fours({y}));
  for_item(from.type, [&](auto item) {
    round(context, {y.data, from.rows, from.cols, y.stride}, fours, rounded, stride, type,
          [&](std::int64_t first) { return act_mul_of<decltype(item)>(from, act, first); });
  });
}

void add(Context& context, Matrix x, Matrix y) {
  map<true>(context, y, in_fours({x, y}),
            [&](std::int64_t first) { return Add{x.row(first), x.stride}; });
}

void add_bias(Context& context, const float* bias, Matrix y) {
  const Matrix row = {const_cast<float*>(bias), 1, y.cols, y.cols};
  map<true>(context, y, in_fours({row, y}), [&](std::int64_t) { return Add{bias, 0}; });
}

void copy(Context& context, Matrix from, Matrix to) {
  map<false>(context, to, in_fours({from, to}),
             [&](std::int64_t first) { return Copy{from.row(first), from.stride}; });
}

void copy_each(Context& context, std::span<const Matrix> from, std::span<const Matrix> to) {
  for (std::size_t first = 0; first < from.size(); first += kMostCopies) {
    const std::size_t count = std::min<std::size_t>(kMostCopies, from.size() - first);
    Copies copies{};
    unsigned blocks = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Matrix &a = from[first + i], &b = to[first + i];
      copies.list[i] = {rows_of(a), rows_of(b), in_fours({a, b})};
      blocks = std::max(blocks, blocks_for(a.rows * a.cols, kThreads * 4));
    }
    const dim3 grid(std::min(blocks, kMostCopyBlocks), static_cast<unsigned>(count));
    context.launch(copy_each_kernel, grid, kThreads, 0, copies);
  }
}

void gather_columns(Context& context, Matrix from, const std::int32_t* order, Matrix to) {
  map<false>(context, to, in_fours({to}),
             [&](std::int64_t first) { return Gather{from.row(first), from.stride, order}; });
}

void rope(Context& context, Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) {
  for_slabs(x.rows, [&](std::int64_t first, std::int64_t count) {
    const dim3 grid(blocks_for(x.cols / head_dim, kThreads / 32), static_cast<unsigned>(count));
    context.launch(rope_kernel, grid, kThreads, 0, rows_of(x.slice(first, count)),
                   static_cast<int>(head_dim), rows_of(cos.slice(first, count)),
                   rows_of(sin.slice(first, count)));
  });
}

void softmax(Context& context, Matrix x) {
  context.launch(softmax_kernel, dim3(static_cast<unsigned>(x.rows)), kThreads, 0, rows_of(x));
}

std::size_t argmax_bytes(std::int64_t rows) {
  return static_cast<std::size_t>(rows) * kArgmaxBlocks * sizeof(Candidate);
}

void argmax(Context& context, Matrix x, std::byte* scratch, Found found) {
  auto* bests = reinterpret_cast<Candidate*>(scratch);
  for_slabs(x.rows, [&](std::int64_t first, std::int64_t count) {
    const auto rows = static_cast<unsigned>(count);
    context.launch(argmax_kernel, dim3(kArgmaxBlocks, rows), kThreads, 0,
                   rows_of(x.slice(first, count)), bests);
    context.launch(argmax_last_kernel, dim3(rows), kThreads, 0, bests, found.from(first));
  });
}

}  // namespace infinilm::cuda
