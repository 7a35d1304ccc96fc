// The kernel behind product.hpp, for one format.
//
// A block of eight warps takes tiles of 16 outputs, one after the other. The warps share a row's columns: warp w has the units
// (32, 64 or 128 columns) w, w + 8, …, and the eight sums are added at the end. In a unit, lane (g, t) of a warp, g = lane / 4,
// holds columns 8 t … 8 t + 7 of every 32 of outputs g and g + 8:
//
//             columns  0      8      16     24    31
//   output g          | t = 0 | t = 1 | t = 2 | t = 3 |    16 bytes of bfloat16 each: whole sectors
//
// which is, with columns numbered in another order for W and x alike, what the tensor cores take: no weight passes through
// shared memory. `kDepth` units are on their way while one is multiplied, and those of the next tile while sums are added.
#pragma once

#include "cuda/pieces.cuh"
#include "cuda/product.hpp"

namespace infinilm::cuda {

inline constexpr int kWarps = 8;
inline constexpr int kProductThreads = kWarps * 32;
inline constexpr int kSumStride = 20;  // of the 16 sums of a column: no bank conflicts

// ---- formats: what a lane holds of a unit
template <Layout kLayout>
struct FloatUnit {
  static constexpr bool kScaled = false;
  static constexpr int kColumns = 32, kPieces = 1, kDepth = kLayout == Layout::F32 ? 2 : 4;
  static constexpr int kLoads = kLayout == Layout::F32 ? 2 : 1,
                       kItem = kLayout == Layout::F32 ? 4 : 2;
  uint4 v[2][kLoads];

  // A lane's two rows of a tile, from its first column on.
  struct Source {
    const std::byte* row[2];
    int left[2];  // bytes of the row that lie there

    __device__ __forceinline__ void open(const MatrixView& m, int tile, bool valid) {
      const int g = lane_index() / 4, skip = lane_index() % 4 * 8 * kItem;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = tile * kTileRows + h * 8 + g;
        row[h] = m.data + r * m.row_bytes + skip;
        left[h] = valid && r < m.outputs ? static_cast<int>(m.row_bytes) - skip : 0;
      }
    }
  };
  __device__ __forceinline__ void load(const Source& from, const UnitLayout&, int unit) {
    const int begin = unit * kColumns * kItem;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int at = begin + i * 16;
        v[h][i] = at < from.left[h] ? load_once(from.row[h] + at) : zero4();
      }
    }
  }
  __device__ __forceinline__ Eight eight(int, int h) const {
    if constexpr (kLayout == Layout::F32) return eight_of_f32(v[h][0], v[h][kLoads - 1]);
    if constexpr (kLayout == Layout::F16) return eight_of_f16(v[h][0]);
    return eight_of_bf16(v[h][0]);
  }
  template <bool>
  __device__ __forceinline__ Pairs pairs(int, int h) const {
    return {{v[h][0].x, v[h][0].y, v[h][0].z, v[h][0].w}};
  }
  __device__ __forceinline__ float scale(int, int) const { return 1.0f; }
};

template <Layout kLayout, int kRuns>
struct QuantisedUnit {
  static constexpr bool kScaled = true;
  static constexpr int kColumns = kLayout == Layout::Q4 ? 128 : 64;
  static constexpr int kPieces = kColumns / 32, kDepth = kLayout == Layout::Q4 ? 2 : 4;
  uint4 codes[2];
  unsigned scales[kRuns];  // of outputs g and g + 8
  std::uint16_t zeros[kRuns];

  struct Source {
    const std::byte* tile;
    int units;  // that lie there

    __device__ __forceinline__ void open(const MatrixView& m, int index, bool valid) {
      tile = m.data + index * m.unit.tile_bytes();
      units = valid ? m.unit.units : 0;
    }
  };
  __device__ __forceinline__ void load(const Source& from, const UnitLayout& layout, int unit) {
    const bool valid = unit < from.units;
    const int lane = lane_index(), g = lane / 4;
    const std::byte* p = from.tile + unit * layout.bytes;
#pragma unroll
    for (int h = 0; h < 2; ++h) codes[h] = valid ? load_once(p + h * 512 + lane * 16) : zero4();
    const auto* s = reinterpret_cast<const unsigned*>(p + 1024) + g * kRuns;
    const auto* z = reinterpret_cast<const std::uint16_t*>(p + 1024 + kRuns * 32) + g * kRuns;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      scales[r] = valid ? s[r] : 0u;
      zeros[r] = static_cast<std::uint16_t>(layout.middle * 0x101);
      if (layout.zeros && valid) zeros[r] = z[r];
    }
  }
  __device__ __forceinline__ static unsigned word(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
  __device__ __forceinline__ int zero(int piece, int h) const {
    return zeros[piece * kRuns / kPieces] >> (8 * h) & 0xff;
  }
  __device__ __forceinline__ Eight eight(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) return eight_of_q4(word(codes[h], piece), zero(piece, h));
    return eight_of_q8(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1), zero(piece, h));
  }
  template <bool kF16>
  __device__ __forceinline__ Pairs pairs(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) {
      return pairs_of_q4<kF16>(word(codes[h], piece), zero(piece, h));
    }
    return pairs_of_q8<kF16>(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1),
                             zero(piece, h));
  }
  __device__ __forceinline__ float scale(int piece, int h) const {
    const unsigned both = scales[piece * kRuns / kPieces];
    return h == 0 ? low_f16(both) : high_f16(both);
  }
};

// ---- arithmetic: sums of 16 outputs x some rows of x, spread over the lanes of a warp
// 16-bit floats on tensor cores; kCount times eight rows.
template <int kCount, bool kF16>
struct TensorSums {
  using X = std::uint16_t;
  __device__ __forceinline__ static X rounded(float x) { return to_half<kF16>(x); }
  __device__ __forceinline__ static void put_four(X* to, const float4& v) {
    *reinterpret_cast<uint2*>(to) = {pack_half<kF16>(v.x, v.y), pack_half<kF16>(v.z, v.w)};
  }
  static constexpr int kRows = kCount * 8;
  float d[kCount][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = d[i][2] = d[i][3] = 0.0f;
  }
  // `x`: of the first column of the unit.
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const X* x, int stride, int rows) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Pairs low = unit.template pairs<kF16>(piece, 0),
                  high = unit.template pairs<kF16>(piece, 1);
      const unsigned first[4] = {low.v[0], high.v[0], low.v[1], high.v[1]};
      const unsigned second[4] = {low.v[2], high.v[2], low.v[3], high.v[3]};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int row = i * 8 + g;
        uint4 b = zero4();
        if (row < rows) b = *reinterpret_cast<const uint4*>(x + row * stride + piece * 32 + t * 8);
        if constexpr (Unit::kScaled) {
          float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
          multiply<kF16>(part, first, b.x, b.y);
          multiply<kF16>(part, second, b.z, b.w);
          const float s0 = unit.scale(piece, 0), s1 = unit.scale(piece, 1);
          d[i][0] = fmaf(part[0], s0, d[i][0]);
          d[i][1] = fmaf(part[1], s0, d[i][1]);
          d[i][2] = fmaf(part[2], s1, d[i][2]);
          d[i][3] = fmaf(part[3], s1, d[i][3]);
        } else {
          multiply<kF16>(d[i], first, b.x, b.y);
          multiply<kF16>(d[i], second, b.z, b.w);
        }
      }
    }
  }
  // to[row of x * kSumStride + output]
  __device__ __forceinline__ void store(float* to) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        to[(i * 8 + 2 * t + j % 2) * kSumStride + g + j / 2 * 8] = d[i][j];
      }
    }
  }
};

// float32, kCount rows.
template <int kCount>
struct FloatSums {
  using X = float;
  __device__ __forceinline__ static X rounded(float x) { return x; }
  __device__ __forceinline__ static void put_four(X* to, const float4& v) {
    *reinterpret_cast<float4*>(to) = v;
  }
  static constexpr int kRows = kCount;
  float d[kCount][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = 0.0f;
  }
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const X* x, int stride, int rows) {
    const int t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Eight w[2] = {unit.eight(piece, 0), unit.eight(piece, 1)};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i >= rows) break;
        const auto* p = reinterpret_cast<const uint4*>(x + i * stride + piece * 32 + t * 8);
        const Eight e = eight_of_f32(p[0], p[1]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float sum = Unit::kScaled ? 0.0f : d[i][h];
#pragma unroll
          for (int k = 0; k < 8; ++k) sum = fmaf(w[h].v[k], e.v[k], sum);
          d[i][h] = Unit::kScaled ? fmaf(sum, unit.scale(piece, h), d[i][h]) : sum;
        }
      }
    }
  }
  __device__ __forceinline__ void store(float* to) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = d[i][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0) to[i * kSumStride + g + h * 8] = sum;
      }
    }
  }
};

// ---- x into shared memory
// Whether rows of x, the norm's weights and its result can be read and written four columns at a time.
inline bool in_fours(const Product& p) {
  const auto fits = [](const float* memory, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0 && stride % 4 == 0;
  };
  return p.parts[0].matrix.inputs % 4 == 0 && fits(p.x, p.x_stride) && fits(p.norm, 0) &&
         fits(p.normed, p.normed_stride);
}

__device__ __forceinline__ float4 load_four(const float* x) {
  return *reinterpret_cast<const float4*>(x);
}

// 1 / sqrt(mean(x^2) + eps) of each row into `scales`.
__device__ __forceinline__ void norm_scales(const Product& p, float* scales) {
  const int inputs = p.parts[0].matrix.inputs, thread = static_cast<int>(threadIdx.x);
  for (int r = 0; r < p.rows; ++r) {
    const float* x = p.x + r * p.x_stride;
    float sum = 0.0f;
    if (p.fours) {
#pragma unroll 4
      for (int i = thread * 4; i < inputs; i += kProductThreads * 4) {
        const float4 v = load_four(x + i);
        sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
      }
    } else {
      for (int i = thread; i < inputs; i += kProductThreads) sum = fmaf(x[i], x[i], sum);
    }
    sum = block_sum(sum);
    if (thread == 0) scales[r] = 1.0f / sqrtf(sum / static_cast<float>(inputs) + p.eps);
  }
  __syncthreads();
}

__device__ __forceinline__ void stage_rounded(const Product& p, int begin, int count,
                                              std::uint16_t* to) {
  const int eights = count / 8;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < p.rows * eights; i += kProductThreads) {
    const int r = i / eights, column = i % eights * 8;
    const bool inside = begin + column < p.rounded_stride;
    const auto* from = p.rounded + r * p.rounded_stride + begin + column;
    copy_async(to + r * p.x_shared_stride + column, inside ? from : p.rounded, inside);
  }
  commit_copies();
  wait_for_copies<0>();
}

// A row's columns from `begin` on, four at a time.
template <class Sums>
__device__ __forceinline__ void stage_fours(const Product& p, int r, float scale, int begin,
                                            int count, typename Sums::X* to) {
  const float* x = p.x + r * p.x_stride + begin;
  const int left = p.parts[0].matrix.inputs - begin;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += kProductThreads * 4) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < left) {
      v = load_four(x + i);
      if (p.norm != nullptr) {
        const float4 w = load_four(p.norm + begin + i);
        v = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
        if (blockIdx.x == 0 && p.normed != nullptr) {
          *reinterpret_cast<float4*>(p.normed + r * p.normed_stride + begin + i) = v;
        }
      }
    }
    Sums::put_four(to + i, v);
  }
}

template <class Sums>
__device__ __forceinline__ void stage_ones(const Product& p, int r, float scale, int begin,
                                           int count, typename Sums::X* to) {
  const float* x = p.x + r * p.x_stride;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kProductThreads) {
    const int column = begin + i;
    float value = column < p.parts[0].matrix.inputs ? x[column] : 0.0f;
    if (p.norm != nullptr && column < p.parts[0].matrix.inputs) {
      value = value * scale * p.norm[column];
      if (blockIdx.x == 0 && p.normed != nullptr) p.normed[r * p.normed_stride + column] = value;
    }
    to[i] = Sums::rounded(value);
  }
}

// Columns from `begin` on, `count` of them; zeros behind the matrix.
template <class Sums>
__device__ __forceinline__ void stage(const Product& p, const float* scales, int begin, int count,
                                      typename Sums::X* to) {
  if constexpr (sizeof(typename Sums::X) == 2) {
    if (p.rounded != nullptr) return stage_rounded(p, begin, count, to);
  }
  for (int r = 0; r < p.rows; ++r) {
    const float scale = p.norm != nullptr ? scales[r] : 1.0f;
    if (p.fours) {
      stage_fours<Sums>(p, r, scale, begin, count, to + r * p.x_shared_stride);
    } else {
      stage_ones<Sums>(p, r, scale, begin, count, to + r * p.x_shared_stride);
    }
  }
}

// ---- the kernel
// Part and tile of it that tile number `tile` of a product is.
struct Place {
  int part, tile;
};
__device__ __forceinline__ Place place_of(const Product& p, int tile) {
  int part = 0;
  while (part + 1 < p.part_count) {
    const int count = (p.parts[part].matrix.outputs + kTileRows - 1) / kTileRows;
    if (tile < count) break;
    tile -= count;
    ++part;
  }
  return {part, tile};
}

template <int kTiles>
__device__ __forceinline__ float sum_of(const float* sums, int rows_of_sums, int tile, int r,
                                        int n) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    sum += sums[((w * kTiles + tile) * rows_of_sums + r) * kSumStride + n];
  }
  return sum;
}

// Units on their way. x of as many must fit into shared memory: with many rows that is one quantised unit for each warp.
template <class Unit, class Sums, int kTiles>
constexpr int depth() {
  if (Unit::kScaled && Sums::kRows > 16) return 1;
  return kTiles == 1 ? Unit::kDepth : (Unit::kDepth + 1) / 2;
}

// kTiles 2: tile t of parts 0 and 1 together, for act(gate) * up.
template <class Unit, class Sums, int kTiles>
__global__ void __launch_bounds__(kProductThreads, 2) product_kernel(Product p) {
  INFINILM_SHARED_MEMORY(memory);
  let_next_start();
  __shared__ float scales[Sums::kRows];
  auto* x = reinterpret_cast<typename Sums::X*>(memory);
  const int x_bytes = p.rows * p.x_shared_stride * static_cast<int>(sizeof(typename Sums::X));
  auto* sums = reinterpret_cast<float*>(memory + (x_bytes + 15) / 16 * 16);
  constexpr int kDepth = depth<Unit, Sums, kTiles>();
  const int warp = warp_index();
  const int steps = (p.units + kWarps - 1) / kWarps;

  Unit ring[kTiles][kDepth];
  typename Unit::Source sources[kTiles];
  const UnitLayout layout = p.parts[0].matrix.unit;
  const auto open = [&](int tile) {
    const bool valid = tile < p.tiles;
    const Place at = kTiles == 1 ? place_of(p, tile) : Place{0, tile};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) sources[i].open(p.parts[at.part + i].matrix, at.tile, valid);
  };
  const auto load = [&](int step, int slot) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) ring[i][slot].load(sources[i], layout, step * kWarps + warp);
  };
  open(static_cast<int>(blockIdx.x));
#pragma unroll
  for (int j = 0; j < kDepth; ++j) load(j, j);

  wait_for_previous();
  if (p.norm != nullptr) norm_scales(p, scales);  // ends with a barrier
  int staged = -1;

  for (int tile = static_cast<int>(blockIdx.x); tile < p.tiles;
       tile += static_cast<int>(gridDim.x)) {
    Sums d[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) d[i].clear();
    for (int begin = 0; begin < steps; begin += p.chunk_steps) {
      if (staged != begin) {
        __syncthreads();
        stage<Sums>(p, scales, begin * kWarps * Unit::kColumns,
                    p.chunk_steps * kWarps * Unit::kColumns, x);
        __syncthreads();
        staged = begin;
      }
      const int end = begin + p.chunk_steps < steps ? begin + p.chunk_steps : steps;
      for (int step = begin; step < end; step += kDepth) {
#pragma unroll
        for (int j = 0; j < kDepth; ++j) {
          const int unit = (step + j) * kWarps + warp;
          if (step + j < end && unit < p.units) {
            const auto* columns = x + (unit - begin * kWarps) * Unit::kColumns;
#pragma unroll
            for (int i = 0; i < kTiles; ++i) {
              d[i].add(ring[i][j], columns, p.x_shared_stride, p.rows);
            }
          }
          load(step + j + kDepth, j);
        }
      }
    }
    open(tile + static_cast<int>(gridDim.x));
#pragma unroll
    for (int j = 0; j < kDepth; ++j) load(j, j);

    __syncthreads();  // the sums of the tile before have been read
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      d[i].store(sums + (warp * kTiles + i) * Sums::kRows * kSumStride);
    }
    __syncthreads();
    const Place at = kTiles == 1 ? place_of(p, tile) : Place{0, tile};
    const ProductPart& part = p.parts[at.part];
    for (int i = static_cast<int>(threadIdx.x); i < p.rows * kTileRows; i += kProductThreads) {
      const int r = i / kTileRows, n = i % kTileRows, output = at.tile * kTileRows + n;
      if (output >= part.matrix.outputs) continue;
      float value = sum_of<kTiles>(sums, Sums::kRows, 0, r, n);
      if (part.bias != nullptr) value += part.bias[output];
      float* y = part.y + r * part.y_stride + output;
      if constexpr (kTiles == 2) {
        float up = sum_of<kTiles>(sums, Sums::kRows, 1, r, n);
        if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output];
        value = activate(value, p.act) * up;
      }
      *y = p.residual ? *y + value : value;
    }
  }
}

// ---- its launch
template <class Unit, class Sums, int kTiles>
void launch_product(Context& context, Product p) {
  constexpr int kDepth = depth<Unit, Sums, kTiles>();
  constexpr int kStep = kWarps * Unit::kColumns;  // columns
  using X = typename Sums::X;
  const int inputs = p.parts[0].matrix.inputs;
  p.fours = in_fours(p);
  p.units = (inputs + Unit::kColumns - 1) / Unit::kColumns;
  const int parts = kTiles == 2 ? 1 : p.part_count;
  p.tiles = 0;
  for (int i = 0; i < parts; ++i) {
    p.tiles += (p.parts[i].matrix.outputs + kTileRows - 1) / kTileRows;
  }
  const std::size_t sums = sizeof(float) * kWarps * kTiles * Sums::kRows * kSumStride;
  const std::size_t room = context.shared_limit() / 2 - 4096 - sums;
  const int steps = (p.units + kWarps - 1) / kWarps;
  p.chunk_steps = (steps + kDepth - 1) / kDepth * kDepth;
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const auto bytes = [&](int chunk) {
    return static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(chunk * kStep + kPad) *
           sizeof(X);
  };
  while (p.chunk_steps > kDepth && bytes(p.chunk_steps) > room) p.chunk_steps -= kDepth;
  p.x_shared_stride = p.chunk_steps * kStep + kPad;
  const std::size_t shared = (bytes(p.chunk_steps) + 15) / 16 * 16 + sums;
  const int blocks =
      p.tiles < 2 * context.multiprocessors() ? p.tiles : 2 * context.multiprocessors();
  context.launch(product_kernel<Unit, Sums, kTiles>, dim3(static_cast<unsigned>(blocks)),
                 kProductThreads, shared, p);
}

template <class Unit, class Sums>
void launch_tiles(Context& context, const Product& p) {
  if (p.act >= 0) {
    launch_product<Unit, Sums, 2>(context, p);
  } else {
    launch_product<Unit, Sums, 1>(context, p);
  }
}

template <class Unit>
void launch_float_sums(Context& context, const Product& p) {
  if (p.rows == 1) {
    launch_tiles<Unit, FloatSums<1>>(context, p);
  } else {
    launch_tiles<Unit, FloatSums<4>>(context, p);
  }
}

template <class Unit, bool kF16>
void launch_tensor_sums(Context& context, const Product& p) {
  if (p.rows <= 8) {
    launch_tiles<Unit, TensorSums<1, kF16>>(context, p);
  } else if (p.rows <= 16) {
    launch_tiles<Unit, TensorSums<2, kF16>>(context, p);
  } else {
    launch_product<Unit, TensorSums<8, kF16>, 1>(
        context, p);  // act(gate) * up at once would spill registers
  }
}

// One for each file of instances.
void launch_floats(Context& context, const Product& product);  // float32 arithmetic, F32, F16, BF16
void launch_halves(Context& context, const Product& product);  // 16-bit arithmetic, F16, BF16
void launch_q8(Context& context, const Product& product);      // any, 8 bits
void launch_q4(Context& context, const Product& product);      // any, 4 bits

}  // namespace infinilm::cuda
