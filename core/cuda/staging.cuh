// x on its way into shared memory, for product.cuh: a warp brings the columns that it multiplies, normalised but for their row's scale,
// rounded, with zeros behind the matrix. All lanes at once; a lane has kOwn neighbouring columns at a time.
#pragma once

#include "cuda/product.hpp"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

// Columns [begin, begin + count) of x: of a warp, a multiple of its units.
struct Columns {
  int begin, count;
};

inline constexpr int kStagedColumns = 32 * kOwn;  // by all lanes at once
inline constexpr int kStagedTimes = 4;            // on their way at once

// What a lane reads of a row; zeros behind the columns. kFours: memory allows to read four at once.
template <bool kFours>
__device__ __forceinline__ void read_own(const float* row, int column, int columns,
                                         float (&v)[kOwn]) {
#pragma unroll
  for (int k = 0; k < kOwn; k += 4) {
    if constexpr (kFours) {
      const float4 four = column + k < columns ? load_four(row + column + k) : zero_four();
      v[k] = four.x, v[k + 1] = four.y, v[k + 2] = four.z, v[k + 3] = four.w;
    } else {
#pragma unroll
      for (int j = k; j < k + 4; ++j) v[j] = column + j < columns ? row[column + j] : 0.0f;
    }
  }
}

// A row's columns.
template <bool kFours, class Sums>
__device__ __forceinline__ void stage_row(const Product& p, int r, Columns own,
                                          const StagedX<Sums>& to) {
  const float* x = p.x + r * p.x_stride;
  const int end = min(own.begin + own.count, p.parts[0].matrix.inputs);
  const int first = lane_index() * kOwn;
  for (int at = 0; at < own.count; at += kStagedTimes * kStagedColumns) {
    float v[kStagedTimes][kOwn];
#pragma unroll
    for (int i = 0; i < kStagedTimes; ++i) {
      read_own<kFours>(x, own.begin + at + i * kStagedColumns + first, end, v[i]);
    }
#pragma unroll
    for (int i = 0; i < kStagedTimes; ++i) {
      const int column = at + i * kStagedColumns;
      if (column >= own.count) break;
      Sums::put(to, r, column + first, v[i], column + first < own.count);
    }
  }
}

__device__ __forceinline__ float scale_of_norm(const Product& p, float squares) {
  return 1.0f / sqrtf(squares / static_cast<float>(p.parts[0].matrix.inputs) + p.eps);
}

// A row's columns times the norm's weights. What the row is to be scaled by is known when all warps have their `squares`; it is left to the
// sums, where the type of x takes numbers of any size.
template <class Sums>
__device__ __forceinline__ void stage_normed(const Product& p, int r, Columns own,
                                             const StagedX<Sums>& to, float* squares) {
  const float* x = p.x + r * p.x_stride;
  const int end = min(own.begin + own.count, p.parts[0].matrix.inputs);
  const int first = lane_index() * kOwn;
  float scale = 1.0f;
  if constexpr (!Sums::kTakesAnySize) {
    float sum = 0.0f;
    for (int at = first; at < own.count; at += kStagedColumns) {
      float v[kOwn];
      read_own<true>(x, own.begin + at, end, v);
#pragma unroll
      for (int k = 0; k < kOwn; ++k) sum = fmaf(v[k], v[k], sum);
    }
    scale = scale_of_norm(p, block_sum(sum));
  }
  float sum = 0.0f;
  for (int at = 0; at < own.count; at += kStagedColumns) {
    const int column = own.begin + at + first;
    float v[kOwn], w[kOwn];
    read_own<true>(x, column, end, v);
    read_own<true>(p.norm, column, end, w);
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      sum = fmaf(v[k], v[k], sum);
      v[k] *= scale * w[k];
    }
    Sums::put(to, r, at + first, v, at + first < own.count);
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) *squares = sum;
}

// Rounded already. Not by copy_async: to wait for it would be to wait for weights on their way, too.
__device__ __forceinline__ void copy_rounded(const Product& p, Columns own, std::uint16_t* to,
                                             int stride) {
  const int eights = own.count / 8;
#pragma unroll 8
  for (int i = lane_index(); i < p.rows * eights; i += 32) {
    const int r = i / eights, column = i % eights * 8;
    const auto* from = p.rounded + r * p.rounded_stride + own.begin + column;
    *reinterpret_cast<uint4*>(to + r * stride + column) =
        own.begin + column < p.rounded_stride ? *reinterpret_cast<const uint4*>(from) : zero4();
  }
}

// `begin`, `count`: runs.
__device__ __forceinline__ void copy_notes(const Product& p, int begin, int count, Note* to) {
  for (int i = lane_index(); i < count * p.rows; i += 32) {
    const int run = begin + i / p.rows, r = i % p.rows;
    to[i] = run < p.runs ? p.notes[run * p.note_stride + r] : Note{0, 0.0f};
  }
}

// `squares`: of a warp's columns of each row, if p.norm.
template <class Unit, class Sums>
__device__ __forceinline__ void stage(const Product& p, Columns own, const StagedX<Sums>& to,
                                      float* squares) {
  if (p.norm != nullptr) {
    for (int r = 0; r < p.rows; ++r) stage_normed(p, r, own, to, squares + r);
    return;
  }
  if constexpr (sizeof(typename Sums::X) == 2) {
    if (p.rounded != nullptr) {
      copy_rounded(p, own, to.x, to.stride);
      if constexpr (Unit::kScaled) {
        constexpr int kRun = Sums::kRunColumns;
        copy_notes(p, own.begin / kRun, own.count / kRun, to.notes);
      }
      return;
    }
  }
  for (int r = 0; r < p.rows; ++r) {
    p.fours ? stage_row<true>(p, r, own, to) : stage_row<false>(p, r, own, to);
  }
}

}  // namespace infinilm::cuda
