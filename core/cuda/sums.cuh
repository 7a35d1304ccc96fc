// The arithmetic of product.cuh: sums of 16 outputs x some rows of x, spread over the lanes of a warp, and how x lies in shared
// memory for it.
#pragma once

#include "cuda/product.hpp"
#include "cuda/units.cuh"

namespace infinilm::cuda {

inline constexpr int kMultiplyingWarps = 8;  // of a block
inline constexpr int kOwn = 8;               // columns of x that a lane stages at a time
inline constexpr int kSumStride = 20;        // of the 16 sums of a row: no bank conflicts

// Whether each of these warps has two neighbouring units.
inline bool takes_pairs(const MatrixView& m) {
  return m.inputs > (kMultiplyingWarps - 1) * 2 * m.unit.columns;
}

// A class of sums has
//   kRows: rows, at most
//   X, Note: what is kept of columns of x in shared memory, and of runs of them, of which there are notes(rows, columns); put()
//     writes both
//   kTakesAnySize: of x
//   kHasDigitRuns: x lies in shared memory as a DigitRow
//   floats(rows): what a warp keeps of a tile, by store(), and place(r, n): where in it is output n of row r
//   take(x): may read what add(unit, x) will need, while the unit is on its way
//   bits(): something that comes of all that was added
struct SumsByRow {
  static constexpr bool kHasDigitRuns = false;
  __host__ __device__ static constexpr int floats(int rows) { return rows * kSumStride; }
  __device__ static constexpr int place(int r, int n) { return r * kSumStride + n; }
  template <class X>
  __device__ __forceinline__ void take(const X&) {}
};

// Of a product, where the compiler may know it.
template <class Sums>
__host__ __device__ __forceinline__ int rows_of(const Product& p) {
  return Sums::kRows == 1 ? 1 : p.rows;
}

// x in shared memory: some columns of all rows.
template <class Sums>
struct StagedX {
  typename Sums::X* x;  // [rows, stride]
  int stride;
  int rows;
  typename Sums::Note* notes;  // of runs of columns, [run, rows]

  // From column number `first` on, a multiple of units.
  __device__ __forceinline__ StagedX from(int first) const {
    return {x + first, stride, rows, notes + Sums::notes(rows, first)};
  }
};

struct NoNote {};

template <int kCount, int kSums>
__device__ __forceinline__ unsigned bits_of(const float (&d)[kCount][kSums]) {
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) bits |= __float_as_uint(d[i][j]);
  }
  return bits;
}

// A sum of a warp's into shared memory, to what is there of other columns.
__device__ __forceinline__ void put_sum(float* to, float sum, bool is_first) {
  *to = is_first ? sum : *to + sum;
}

// Sums of a warp's tile by lanes (g, t): to[row of x * kSumStride + output]
template <int kCount>
__device__ __forceinline__ void store_sums(const float (&d)[kCount][4], float* to, int rows,
                                           bool is_first) {
  const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = i * 8 + 2 * t + j % 2;
      if (row < rows) put_sum(to + SumsByRow::place(row, g + j / 2 * 8), d[i][j], is_first);
    }
  }
}

// What a lane multiplies of a piece of 32 columns on tensor cores, in two products: of a unit of W,
struct PieceOfW {
  unsigned first[4], second[4];
  PieceOfW() = default;
  template <class Unit>
  __device__ __forceinline__ PieceOfW(const Unit& unit, int piece)
      : PieceOfW(unit.pairs(piece, 0), unit.pairs(piece, 1)) {}
  __device__ __forceinline__ PieceOfW(const Pairs& low, const Pairs& high) {
    first[0] = low.v[0], first[1] = high.v[0], first[2] = low.v[1], first[3] = high.v[1];
    second[0] = low.v[2], second[1] = high.v[2], second[2] = low.v[3], second[3] = high.v[3];
  }
};
// and of a row of x, of which `column` is the piece's first. What is multiplied for rows that are not there, nobody asks for.
template <class Sums>
__device__ __forceinline__ uint4 piece_of_x(const StagedX<Sums>& from, int row, int column) {
  const auto* x = from.x + column + lane_index() % 4 * 8;
  return *reinterpret_cast<const uint4*>(x + min(row, from.rows - 1) * from.stride);
}

// 16-bit floats on tensor cores; kCount times eight rows.
template <int kCount, bool kF16>
struct TensorSums : SumsByRow {
  using X = std::uint16_t;
  using Note = NoNote;
  static constexpr int kRows = 8 * kCount;
  static constexpr bool kTakesAnySize = !kF16;
  // Two sums for each output: one product need not wait for the one before.
  float d[kCount][4], other[kCount][4];

  static constexpr int notes(int, int) { return 0; }
  __device__ __forceinline__ static void put(const StagedX<TensorSums>& to, int r, int column,
                                             const float (&v)[kOwn], bool is_inside) {
    if (!is_inside) return;
    *reinterpret_cast<uint4*>(to.x + r * to.stride + column) =
        make_uint4(pack_half<kF16>(v[0], v[1]), pack_half<kF16>(v[2], v[3]),
                   pack_half<kF16>(v[4], v[5]), pack_half<kF16>(v[6], v[7]));
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) d[i][j] = other[i][j] = 0.0f;
    }
  }
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<TensorSums>& from) {
    const int g = lane_index() / 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const PieceOfW w(unit, piece);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const uint4 b = piece_of_x(from, i * 8 + g, piece * 32);
        multiply<kF16>(d[i], w.first, b.x, b.y);
        multiply<kF16>(other[i], w.second, b.z, b.w);
      }
    }
  }
  __device__ __forceinline__ unsigned bits() const { return bits_of(d) | bits_of(other); }
  __device__ __forceinline__ void store(float* to, int rows, bool is_first) const {
    float sums[kCount][4];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] = d[i][j] + other[i][j];
    }
    store_sums<kCount>(sums, to, rows, is_first);
  }
};

// float32, kCount rows.
template <int kCount>
struct FloatSums : SumsByRow {
  using X = float;
  using Note = NoNote;
  static constexpr int kRows = kCount;
  static constexpr bool kTakesAnySize = true;
  float d[kCount][2];

  static constexpr int notes(int, int) { return 0; }
  __device__ __forceinline__ static void put(const StagedX<FloatSums>& to, int r, int column,
                                             const float (&v)[kOwn], bool is_inside) {
    if (!is_inside) return;
    auto* x = reinterpret_cast<float4*>(to.x + r * to.stride + column);
    x[0] = make_float4(v[0], v[1], v[2], v[3]);
    x[1] = make_float4(v[4], v[5], v[6], v[7]);
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = 0.0f;
  }
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<FloatSums>& from) {
    const int t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Eight w[2] = {unit.eight(piece, 0), unit.eight(piece, 1)};
      const float* x = from.x + piece * 32 + t * 8;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i >= from.rows) break;
        const auto* p = reinterpret_cast<const uint4*>(x + i * from.stride);
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
  __device__ __forceinline__ unsigned bits() const { return bits_of(d); }
  __device__ __forceinline__ void store(float* to, int rows, bool is_first) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = d[i][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0 && i < rows) put_sum(to + place(i, g + h * 8), sum, is_first);
      }
    }
  }
};

}  // namespace infinilm::cuda
