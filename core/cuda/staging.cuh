// x on its way into shared memory, for product.cuh: normalised, rounded, with zeros behind its columns. A thread has four columns
// at a time, or sixteen, and a warp 128 or 512 neighbouring ones, of which all are staged or none.
#pragma once

#include "cuda/product.hpp"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

inline constexpr int kScaledColumns = 16;
inline constexpr int kStagedTogether = 128, kScaledTogether = 32 * kScaledColumns;  // columns

// All columns, normalised. A thread keeps what it has read until the sum of squares is known.
template <int kThreads, class Sums>
__device__ __forceinline__ void stage_normed(const Product& p, int count, const StagedX<Sums>& to) {
  constexpr int kHold = kMostNormed / (kThreads * 4);
  const int inputs = p.parts[0].matrix.inputs, begin = static_cast<int>(threadIdx.x) * 4;
  for (int r = 0; r < p.rows; ++r) {
    float4 v[kHold], w[kHold];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      const int at = begin + i * kThreads * 4;
      const bool inside = at < inputs;
      v[i] = inside ? load_four(p.x + r * p.x_stride + at) : zero_four();
      w[i] = inside ? load_four(p.norm + at) : zero_four();
    }
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      sum = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, sum));
      sum = fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, sum));
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(inputs) + p.eps);
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      const int at = begin + i * kThreads * 4;
      if (at >= count) break;
      const float4 y = make_float4(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y,
                                   v[i].z * scale * w[i].z, v[i].w * scale * w[i].w);
      Sums::put(to, r, at, y);
      if (blockIdx.x == 0 && p.normed != nullptr && at < inputs) {
        *reinterpret_cast<float4*>(p.normed + r * p.normed_stride + at) = y;
      }
    }
  }
}

// Rounded already. Not by copy_async: to wait for it would be to wait for weights on their way, too.
__device__ __forceinline__ void copy_rounded(const Product& p, int begin, int count,
                                             std::uint16_t* to, int stride) {
  const int eights = count / 8, threads = static_cast<int>(blockDim.x);
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < p.rows * eights; i += threads) {
    const int r = i / eights, column = begin + i % eights * 8;
    const auto* from = reinterpret_cast<const uint4*>(p.rounded + r * p.rounded_stride + column);
    *reinterpret_cast<uint4*>(to + r * stride + column - begin) =
        column < p.rounded_stride ? *from : zero4();
  }
}

__device__ __forceinline__ void copy_notes(const Product& p, int begin, int count, Note* to) {
  const int rows = noted_rows(p.rows), threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < count * rows; i += threads) {
    const int run = begin + i / rows, r = i % rows;
    const bool inside = r < p.rows && run < p.runs;
    to[i] = inside ? p.notes[run * p.note_stride + r] : Note{0.0f, 0.0f};
  }
}

// A row's columns for sums of codes, which want to know more of x: of long rows, the more of them a thread has, the less there is to
// do in all. kFours: memory allows to read four at once.
template <bool kFours, class Sums>
__device__ __forceinline__ void stage_scaled_row(const Product& p, int r, int begin, int count,
                                                 const StagedX<Sums>& to) {
  const float* x = p.x + r * p.x_stride + begin;
  const int left = p.parts[0].matrix.inputs - begin, threads = static_cast<int>(blockDim.x);
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * kScaledColumns; i < count;
       i += threads * kScaledColumns) {
    float v[kScaledColumns];
#pragma unroll
    for (int k = 0; k < kScaledColumns; k += 4) {
      if constexpr (kFours) {
        const float4 four = i + k < left ? load_four(x + i + k) : zero_four();
        v[k] = four.x, v[k + 1] = four.y, v[k + 2] = four.z, v[k + 3] = four.w;
      } else {
#pragma unroll
        for (int j = k; j < k + 4; ++j) v[j] = i + j < left ? x[i + j] : 0.0f;
      }
    }
    Sums::put(to, r, i, v);
  }
}

// A row's columns from `begin` on; kFours: memory allows to read four at once.
template <bool kFours, class Sums>
__device__ __forceinline__ void stage_row(const Product& p, int r, int begin, int count,
                                          const StagedX<Sums>& to) {
  const int left = p.parts[0].matrix.inputs - begin, threads = static_cast<int>(blockDim.x);
  if constexpr (Sums::kStagesMore) {
    if (count >= threads * kScaledColumns) {
      return stage_scaled_row<kFours>(p, r, begin, count, to);
    }
  }
  const float* x = p.x + r * p.x_stride + begin;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += threads * 4) {
    float4 v = zero_four();
    if constexpr (kFours) {
      if (i < left) v = load_four(x + i);
    } else {
      const auto one = [&](int k) { return k < left ? x[k] : 0.0f; };
      v = make_float4(one(i), one(i + 1), one(i + 2), one(i + 3));
    }
    Sums::put(to, r, i, v);
  }
}

// Columns from `begin` on, `count` of them; zeros behind the matrix.
template <int kThreads, class Unit, class Sums>
__device__ __forceinline__ void stage(const Product& p, int begin, int count,
                                      const StagedX<Sums>& to) {
  if (p.norm != nullptr) return stage_normed<kThreads>(p, count, to);
  if constexpr (sizeof(typename Sums::X) == 2) {
    if (p.rounded != nullptr) {
      copy_rounded(p, begin, count, to.x, to.stride);
      if constexpr (Unit::kScaled) {
        constexpr int kRun = Sums::kRunColumns;
        copy_notes(p, begin / kRun, count / kRun, to.notes);
      }
      return;
    }
  }
  for (int r = 0; r < p.rows; ++r) {
    p.fours ? stage_row<true>(p, r, begin, count, to) : stage_row<false>(p, r, begin, count, to);
  }
}

}  // namespace infinilm::cuda
