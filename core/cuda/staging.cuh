// x on its way into shared memory, for product.cuh: normalised, rounded, with zeros behind its columns. A thread has a few columns
// at a time (Sums::kOwn), and a warp neighbouring ones, of which all are staged or none.
#pragma once

#include "cuda/product.hpp"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

// All columns, normalised. A thread keeps what it has read until the sum of squares is known.
template <int kThreads, class Sums>
__device__ __forceinline__ void stage_normed(const Product& p, int count, const StagedX<Sums>& to) {
  constexpr int kOwn = Sums::kOwn, kFours = kOwn / 4, kTimes = kMostNormed / (kThreads * kOwn);
  const int inputs = p.parts[0].matrix.inputs, begin = static_cast<int>(threadIdx.x) * kOwn;
  for (int r = 0; r < p.rows; ++r) {
    float4 v[kTimes][kFours], w[kTimes][kFours];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
#pragma unroll
      for (int k = 0; k < kFours; ++k) {
        const int at = begin + i * kThreads * kOwn + k * 4;
        const bool inside = at < inputs;
        v[i][k] = inside ? load_four(p.x + r * p.x_stride + at) : zero_four();
        w[i][k] = inside ? load_four(p.norm + at) : zero_four();
      }
    }
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
#pragma unroll
      for (int k = 0; k < kFours; ++k) {
        const float4 four = v[i][k];
        sum = fmaf(four.x, four.x, fmaf(four.y, four.y, sum));
        sum = fmaf(four.z, four.z, fmaf(four.w, four.w, sum));
      }
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(inputs) + p.eps);
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int at = begin + i * kThreads * kOwn;
      if (at >= count) break;
      float y[kOwn];
#pragma unroll
      for (int k = 0; k < kFours; ++k) {
        const float4 a = v[i][k], b = w[i][k];
        y[4 * k] = a.x * scale * b.x, y[4 * k + 1] = a.y * scale * b.y;
        y[4 * k + 2] = a.z * scale * b.z, y[4 * k + 3] = a.w * scale * b.w;
      }
      Sums::put(to, r, at, y);
      if (blockIdx.x != 0 || p.normed == nullptr) continue;
#pragma unroll
      for (int k = 0; k < kOwn; k += 4) {
        if (at + k >= inputs) break;
        *reinterpret_cast<float4*>(p.normed + r * p.normed_stride + at + k) =
            make_float4(y[k], y[k + 1], y[k + 2], y[k + 3]);
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
  const int threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < count * p.rows; i += threads) {
    const int run = begin + i / p.rows, r = i % p.rows;
    to[i] = run < p.runs ? p.notes[run * p.note_stride + r] : Note{0, 0.0f};
  }
}

// A row's columns from `begin` on; kFours: memory allows to read four at once.
template <bool kFours, class Sums>
__device__ __forceinline__ void stage_row(const Product& p, int r, int begin, int count,
                                          const StagedX<Sums>& to) {
  constexpr int kOwn = Sums::kOwn;
  const float* x = p.x + r * p.x_stride + begin;
  const int left = p.parts[0].matrix.inputs - begin, threads = static_cast<int>(blockDim.x);
#pragma unroll(32 / Sums::kOwn)
  for (int i = static_cast<int>(threadIdx.x) * kOwn; i < count; i += threads * kOwn) {
    float v[kOwn];
#pragma unroll
    for (int k = 0; k < kOwn; k += 4) {
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
