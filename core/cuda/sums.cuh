// The arithmetic of product.cuh: sums of 16 outputs x some rows of x, spread over the lanes of a warp, and how x lies in shared
// memory for it.
#pragma once

#include "cuda/product.hpp"
#include "cuda/units.cuh"

namespace infinilm::cuda {

inline constexpr int kSumStride = 20;  // of the 16 sums of a column: no bank conflicts

// x in shared memory: some columns of all rows.
template <class Sums>
struct StagedX {
  typename Sums::X* x;  // [rows, stride]
  int stride;
  int rows;
  typename Sums::Note* notes;  // of runs of columns, [run, noted_rows(rows)]
};

// Rows of notes for `rows` of x: a lane reads those of two neighbouring rows at once.
__host__ __device__ constexpr int noted_rows(int rows) { return (rows + 1) / 2 * 2; }

struct NoNote {};

// Sums of a warp's tile by lanes (g, t): to[row of x * kSumStride + output]
template <int kCount>
__device__ __forceinline__ void store_sums(const float (&d)[kCount][4], float* to, int rows) {
  const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = i * 8 + 2 * t + j % 2;
      if (row < rows) to[row * kSumStride + g + j / 2 * 8] = d[i][j];
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
// and of a row of x, of which `column` is the piece's first; zeros where there is no such row.
template <class Sums>
__device__ __forceinline__ uint4 piece_of_x(const StagedX<Sums>& from, int row, int column) {
  const auto* x = from.x + column + lane_index() % 4 * 8;
  uint4 v = zero4();
  if (row < from.rows) v = *reinterpret_cast<const uint4*>(x + row * from.stride);
  return v;
}

// 16-bit floats on tensor cores; kCount times eight rows.
template <int kCount, bool kF16>
struct TensorSums {
  using X = std::uint16_t;
  using Note = NoNote;
  static constexpr bool kStagesMore = false;
  // Two sums for each output: one product need not wait for the one before.
  float d[kCount][4], other[kCount][4];

  static constexpr int notes(int, int) { return 0; }
  __device__ __forceinline__ static void put(const StagedX<TensorSums>& to, int r, int column,
                                             const float4& v) {
    *reinterpret_cast<uint2*>(to.x + r * to.stride + column) = {pack_half<kF16>(v.x, v.y),
                                                                pack_half<kF16>(v.z, v.w)};
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) d[i][j] = other[i][j] = 0.0f;
    }
  }
  // `column`: the unit's first.
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<TensorSums>& from,
                                      int column) {
    const int g = lane_index() / 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const PieceOfW w(unit, piece);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const uint4 b = piece_of_x(from, i * 8 + g, column + piece * 32);
        multiply<kF16>(d[i], w.first, b.x, b.y);
        multiply<kF16>(other[i], w.second, b.z, b.w);
      }
    }
  }
  __device__ __forceinline__ void store(float* to, int rows) const {
    float sums[kCount][4];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] = d[i][j] + other[i][j];
    }
    store_sums<kCount>(sums, to, rows);
  }
};

// A power of two that brings `largest` to [2^14, 2^15), near the end of what float16 holds, and its inverse; 1 for infinities.
struct PowerOfTwo {
  float value, inverse;
};
__device__ __forceinline__ PowerOfTwo scale_for(float largest) {
  const unsigned exponent = __float_as_uint(largest) >> 23;
  const unsigned biased = exponent == 255 ? 127u : min(268u - exponent, 253u);
  return {__uint_as_float(biased << 23), __uint_as_float((254u - biased) << 23)};
}

// kOwn columns of a row as float16, scaled for their run, by lanes that have neighbouring ones; all lanes of a warp at once. True
// where `note` is to be kept: in one lane of each run.
template <int kRunColumns, int kOwn>
__device__ __forceinline__ bool scale_columns(const float (&v)[kOwn], unsigned (&halves)[kOwn / 2],
                                              Note& note) {
  constexpr int kLanes = kRunColumns / kOwn;
  float largest = 0.0f, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) largest = fmaxf(largest, fabsf(v[i]));
#pragma unroll
  for (int mask = 1; mask < kLanes; mask *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, mask));
  }
  const PowerOfTwo scale = scale_for(largest);
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) {
    halves[i] = pack_f16(v[2 * i] * scale.value, v[2 * i + 1] * scale.value);
    sum += low_f16(halves[i]) + high_f16(halves[i]);
  }
#pragma unroll
  for (int mask = 1; mask < kLanes; mask *= 2) sum += __shfl_xor_sync(kAll, sum, mask);
  note = {sum, scale.inverse};
  return lane_index() % kLanes == 0;
}

// Codes on tensor cores, without taking them apart: a code beside a fixed exponent is the float16 `offset + code`, so that
//   sum of (code - zero) x = sum of (offset + code) x - (offset + zero) * sum of x.
// The sum of x was taken when x was staged, for each run of columns that share a scale; so was a power of two that brings the run
// to where float16 has all its eleven bits: x is rounded less than to bfloat16, but for what is 2^29 times smaller than the run's
// largest. Infinities become NaN.
// kCount times eight rows.
template <class Unit, int kCount>
struct OffsetSums {
  using X = std::uint16_t;
  // Columns at a time, of long rows. For eight bits there are no registers for it.
  static constexpr bool kStagesMore = Unit::kFormat == Layout::Q4;
  static constexpr int kRows = kCount * 8;
  static constexpr float kOffset = kCodeOffset<Unit::kFormat>;
  static constexpr int kRunColumns = Unit::kColumns / Unit::kRunsOfUnit;
  static constexpr int kRunPieces = Unit::kPieces / Unit::kRunsOfUnit;
  using Note = cuda::Note;
  float d[kCount][4];

  // For `columns` of x; those that lanes read for rows that are not there may lie behind.
  static constexpr int notes(int rows, int columns) {
    return columns / kRunColumns * noted_rows(rows) + kRows;
  }
  __device__ __forceinline__ static void put(const StagedX<OffsetSums>& to, int r, int column,
                                             const float4& v) {
    put(to, r, column, {v.x, v.y, v.z, v.w});
  }
  // The more columns a lane has, the less there is to do in all.
  template <int kOwn>
  __device__ __forceinline__ static void put(const StagedX<OffsetSums>& to, int r, int column,
                                             const float (&v)[kOwn]) {
    Note note;
    unsigned halves[kOwn / 2];
    if (scale_columns<kRunColumns>(v, halves, note)) {
      to.notes[column / kRunColumns * noted_rows(to.rows) + r] = note;
    }
    auto* x = to.x + r * to.stride + column;
    if constexpr (kOwn == 4) {
      *reinterpret_cast<uint2*>(x) = {halves[0], halves[1]};
    } else {
#pragma unroll
      for (int i = 0; i < kOwn / 2; i += 4) {
        *reinterpret_cast<uint4*>(x + 2 * i) =
            make_uint4(halves[i], halves[i + 1], halves[i + 2], halves[i + 3]);
      }
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = d[i][2] = d[i][3] = 0.0f;
  }
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<OffsetSums>& from,
                                      int column) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const int stride = noted_rows(from.rows);
#pragma unroll
    for (int run = 0; run < Unit::kRunsOfUnit; ++run) {
      const int first_piece = run * kRunPieces;
      const Note* notes = from.notes + (column / kRunColumns + run) * stride + 2 * t;
      const float offset[2] = {kOffset + static_cast<float>(unit.zero(first_piece, 0)),
                               kOffset + static_cast<float>(unit.zero(first_piece, 1))};
      float part[kCount][4], scales[kCount][2];
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const Note note = notes[i * 8 + j];
          scales[i][j] = note.scale;
          part[i][j] = -offset[0] * note.sum;
          part[i][2 + j] = -offset[1] * note.sum;
        }
      }
#pragma unroll
      for (int piece = first_piece; piece < first_piece + kRunPieces; ++piece) {
        const PieceOfW w(unit, piece);
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const uint4 b = piece_of_x(from, i * 8 + g, column + piece * 32);
          multiply<true>(part[i], w.first, b.x, b.y);
          multiply<true>(part[i], w.second, b.z, b.w);
        }
      }
      const float of_unit[2] = {unit.scale(first_piece, 0), unit.scale(first_piece, 1)};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          d[i][j] = fmaf(part[i][j], of_unit[j / 2] * scales[i][j % 2], d[i][j]);
        }
      }
    }
  }
  __device__ __forceinline__ void store(float* to, int rows) const {
    store_sums<kCount>(d, to, rows);
  }
};

// The same for one row of x. All columns of a product on tensor cores have it, since nobody asks for the others: nothing has to be
// zero, and only the sums of one column are scaled.
template <class Unit>
struct OneRowSums {
  using All = OffsetSums<Unit, 1>;
  using X = typename All::X;
  using Note = cuda::Note;
  static constexpr bool kStagesMore = All::kStagesMore;
  static constexpr int kRunColumns = All::kRunColumns;
  float d[2];  // outputs g, g + 8

  static constexpr int notes(int rows, int columns) { return All::notes(rows, columns); }
  template <class Values>
  __device__ __forceinline__ static void put(const StagedX<OneRowSums>& to, int r, int column,
                                             const Values& v) {
    All::put({to.x, to.stride, to.rows, to.notes}, r, column, v);
  }
  __device__ __forceinline__ void clear() { d[0] = d[1] = 0.0f; }
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<OneRowSums>& from,
                                      int column) {
    const Note* notes = from.notes + column / kRunColumns * noted_rows(1);
    const X* x = from.x + column + lane_index() % 4 * 8;
#pragma unroll
    for (int run = 0; run < Unit::kRunsOfUnit; ++run) {
      const int first_piece = run * All::kRunPieces;
      float part[4] = {};
#pragma unroll
      for (int piece = first_piece; piece < first_piece + All::kRunPieces; ++piece) {
        const PieceOfW w(unit, piece);
        const uint4 b = *reinterpret_cast<const uint4*>(x + piece * 32);
        multiply<true>(part, w.first, b.x, b.y);
        multiply<true>(part, w.second, b.z, b.w);
      }
      const Note note = notes[run * noted_rows(1)];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float offset = All::kOffset + static_cast<float>(unit.zero(first_piece, h));
        const float exact = fmaf(-offset, note.sum, part[2 * h]);
        d[h] = fmaf(exact, unit.scale(first_piece, h) * note.scale, d[h]);
      }
    }
  }
  __device__ __forceinline__ void store(float* to, int) const {
    const int lane = lane_index();
    if (lane % 4 == 0) {
      to[lane / 4] = d[0];
      to[lane / 4 + 8] = d[1];
    }
  }
};

// float32, kCount rows.
template <int kCount>
struct FloatSums {
  using X = float;
  using Note = NoNote;
  static constexpr bool kStagesMore = false;
  float d[kCount][2];

  static constexpr int notes(int, int) { return 0; }
  __device__ __forceinline__ static void put(const StagedX<FloatSums>& to, int r, int column,
                                             const float4& v) {
    *reinterpret_cast<float4*>(to.x + r * to.stride + column) = v;
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = 0.0f;
  }
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<FloatSums>& from,
                                      int column) {
    const int t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Eight w[2] = {unit.eight(piece, 0), unit.eight(piece, 1)};
      const float* x = from.x + column + piece * 32 + t * 8;
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
  __device__ __forceinline__ void store(float* to, int rows) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = d[i][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0 && i < rows) to[i * kSumStride + g + h * 8] = sum;
      }
    }
  }
};

}  // namespace infinilm::cuda
