// x on its way into shared memory, for product.cuh: a warp brings the columns that it multiplies, normalised but for their row's scale,
// rounded, with zeros behind the matrix. All lanes at once; a lane has kOwn neighbouring columns at a time.
#pragma once

#include "cuda/product.hpp"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

// Of a chunk of x that begins with column `begin`, those that a warp multiplies: `count` in all, of every eighth unit.
template <class Unit>
struct OwnColumns {
  int begin, warp, count;
  // Where number i lies in the chunk, and in x: behind its `inputs` columns, if there is none.
  __device__ __forceinline__ int in_chunk(int i) const {
    // To divide by a power of two is least for numbers without a sign.
    constexpr unsigned kColumns = Unit::kColumns;
    const auto n = static_cast<unsigned>(i);
    return static_cast<int>(n / kColumns * (kMultiplyingWarps * kColumns) + n % kColumns) +
           warp * Unit::kColumns;
  }
  __device__ __forceinline__ int in_x(int i, int inputs) const {
    return i < count ? begin + in_chunk(i) : inputs;
  }
};

inline constexpr int kStagedColumns = 32 * kOwn;  // by all lanes at once

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

// A row's columns: kTimes times what all lanes have is on its way at once.
template <bool kFours, class Unit, class Sums>
__device__ __forceinline__ void stage_row(const Product& p, int r, OwnColumns<Unit> own,
                                          const StagedX<Sums>& to) {
  constexpr int kTimes = kFours ? 4 : 1, kAtOnce = kFours ? 2 : 1;
  const float* x = p.x + r * p.x_stride;
  const int inputs = p.parts[0].matrix.inputs;
  const int first = lane_index() * kOwn;
  for (int at = 0; at < own.count; at += kTimes * kStagedColumns) {
    float v[kTimes][kOwn];
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      read_own<kFours>(x, own.in_x(at + i * kStagedColumns + first, inputs), inputs, v[i]);
    }
#pragma unroll
    for (int i = 0; i < kTimes; i += kAtOnce) {
      if (at + i * kStagedColumns >= own.count) break;
#pragma unroll
      for (int k = i; k < i + kAtOnce; ++k) {
        const int number = at + k * kStagedColumns + first;
        Sums::put(to, r, own.in_chunk(number), v[k], number < own.count);
      }
    }
  }
}

__device__ __forceinline__ float scale_of_norm(const Product& p, float squares) {
  return inverse_root(quotient(squares, static_cast<float>(p.parts[0].matrix.inputs)) + p.eps);
}

// A row's columns times the norm's weights. What the row is to be scaled by is known when all warps have their `squares`; it is left to the
// sums, where the type of x takes numbers of any size.
template <class Unit, class Sums>
__device__ __forceinline__ void stage_normed(const Product& p, int r, OwnColumns<Unit> own,
                                             const StagedX<Sums>& to, float* squares) {
  const float* x = p.x + r * p.x_stride;
  const int inputs = p.parts[0].matrix.inputs;
  const int first = lane_index() * kOwn;
  float scale = 1.0f;
  if constexpr (!Sums::kTakesAnySize) {
    float sum = 0.0f;
    for (int at = first; at < own.count; at += kStagedColumns) {
      float v[kOwn];
      read_own<true>(x, own.in_x(at, inputs), inputs, v);
#pragma unroll
      for (int k = 0; k < kOwn; ++k) sum = fmaf(v[k], v[k], sum);
    }
    scale = scale_of_norm(p, block_sum(sum));
  }
  constexpr int kTimes = 2;
  float sum = 0.0f;
  for (int at = 0; at < own.count; at += kTimes * kStagedColumns) {
    float v[kTimes][kOwn], w[kTimes][kOwn];
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int column = own.in_x(at + i * kStagedColumns + first, inputs);
      read_own<true>(x, column, inputs, v[i]);
      read_own<true>(p.norm, column, inputs, w[i]);
    }
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int number = at + i * kStagedColumns + first;
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        sum = fmaf(v[i][k], v[i][k], sum);
        v[i][k] *= scale * w[i][k];
      }
      Sums::put(to, r, own.in_chunk(number), v[i], number < own.count);
    }
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) *squares = sum;
}

// Rounded already. Not by copy_async: to wait for it would be to wait for weights on their way, too.
template <class Unit>
__device__ __forceinline__ void copy_rounded(const Product& p, OwnColumns<Unit> own,
                                             std::uint16_t* to, int stride) {
  const int eights = own.count / 8;
#pragma unroll 8
  for (int i = lane_index(); i < p.rows * eights; i += 32) {
    const int r = i / eights, column = own.in_chunk(i % eights * 8);
    const auto* from = p.rounded + r * p.rounded_stride + own.begin + column;
    *reinterpret_cast<uint4*>(to + r * stride + column) =
        own.begin + column < p.rounded_stride ? *reinterpret_cast<const uint4*>(from) : zero4();
  }
}

template <class Unit, class Sums>
__device__ __forceinline__ void copy_notes(const Product& p, OwnColumns<Unit> own, Note* to) {
  constexpr int kRun = Sums::kRunColumns;
  for (int i = lane_index(); i < own.count / kRun * p.rows; i += 32) {
    const int r = i % p.rows, at = own.in_chunk(i / p.rows * kRun) / kRun;
    const int run = own.begin / kRun + at;
    to[at * p.rows + r] = run < p.runs ? p.notes[run * p.note_stride + r] : Note{0, 0.0f};
  }
}

// Digits of one row, with their notes.
template <class Unit, class Sums>
__device__ __forceinline__ void copy_digits(const Product& p, OwnColumns<Unit> own,
                                            const StagedX<Sums>& to) {
  constexpr int kTimes = 4, kNotesTimes = kTimes * kOwn / kDigitRun;
  const int lane = lane_index();
  for (int at = 0; at < own.count; at += kTimes * kStagedColumns) {
    Note notes[kNotesTimes];
    uint4 x[kTimes];
    const auto each = [&](auto& of, int columns, auto use) {
      int i = at + lane * columns;
#pragma unroll
      for (auto& v : of) {
        if (i < own.count) use(v, own.in_chunk(i));
        i += 32 * columns;
      }
    };
    each(notes, kDigitRun, [&](Note& v, int column) {
      v = p.digits.notes[static_cast<unsigned>(own.begin + column) / kDigitRun];
    });
    each(x, kOwn, [&](uint4& v, int column) {
      v = *reinterpret_cast<const uint4*>(p.digits.x + own.begin + column);
    });
    each(notes, kDigitRun, [&](const Note& v, int column) { Sums::put_note(to, 0, column, v); });
    each(x, kOwn,
         [&](const uint4& v, int column) { *reinterpret_cast<uint4*>(to.x + column) = v; });
  }
}

// `squares`: of a warp's columns of each row, if p.norm.
template <class Unit, class Sums>
__device__ __forceinline__ void stage(const Product& p, OwnColumns<Unit> own,
                                      const StagedX<Sums>& to, float* squares) {
  if constexpr (Sums::kHasDigitRuns) {
    if (p.digits.x != nullptr) return copy_digits(p, own, to);
  }
  const int rows = rows_of<Sums>(p);
  if (p.norm != nullptr) {
    for (int r = 0; r < rows; ++r) stage_normed(p, r, own, to, squares + r);
    return;
  }
  if constexpr (sizeof(typename Sums::X) == 2 && Sums::kRows > 1) {
    if (p.rounded != nullptr) {
      copy_rounded(p, own, to.x, to.stride);
      if constexpr (Unit::kScaled) copy_notes<Unit, Sums>(p, own, to.notes);
      return;
    }
  }
  for (int r = 0; r < rows; ++r) {
    p.fours ? stage_row<true>(p, r, own, to) : stage_row<false>(p, r, own, to);
  }
}

}  // namespace infinilm::cuda
