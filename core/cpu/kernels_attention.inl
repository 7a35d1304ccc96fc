// Attention over blocks of 64 tokens: keys [D][64], values [64][value_stride(D)].
//
//   scores  [rows][64]  = q [rows][D] x keys     both with the register tiles of kernels_gemm.inl; the query heads
//   values  [rows][D]  += p [rows][64] x values  that share a key head are rows of one tile, so each key is read once
//
// Keys and values of 16 or 8 bits are widened as they are read, exactly, or once for a task of many rows, so that either
// way gives the same bits; the scales of Int8 are multiplied into scores and softmax weights.
//
// Online softmax: a new largest score rescales what was summed before. A block in which a row sees no key leaves that
// row's bits as they are, so that a row does not feel the others in its tile.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_gemm.inl"
#include "cpu/kernels_kv.inl"
#include "cpu/kernels_math.inl"
#include "cpu/kernels_rows.inl"

namespace infinilm::cpu::INFINILM_ISA {

// Vectors side by side, so that a tile of few rows has enough chains.
template <int MR>
constexpr int tile_vectors() {
  const int wide = kVectors * (kPanelsAtOnce / MR > 1 ? kPanelsAtOnce / MR : 1);
  return wide * kWidth < kKeys ? wide : kKeys / kWidth;
}

// out[r][0...63] = sum over d of q[d][r] keys[d][...]. What is multiplied next, as large as the keys, is asked for.
template <class Load, int MR, bool kAhead>
inline void score_tile(const float* q, const typename Load::Element* keys, i64 head_dim, float* out,
                       const typename Load::Element* next) {
  constexpr int NV = tile_vectors<MR>();
  for (int j = 0; j < kKeys; j += NV * kWidth) {
    const typename Load::Element* b = keys + j;
    float* c = out + j;
    const char* ahead = reinterpret_cast<const char*>(next + j * head_dim);
    multiply<Load, MR, NV, 1, MR, 1, kAhead>(q, &b, kKeys, head_dim, &c, kKeys, true, &ahead);
  }
}

// values[r][...] += sum over t < keys of p[r][t] v[t][...], columns [column, columns)
template <class Load, int MR, int NV, bool kAhead>
inline void mix_columns(const float* p, const typename Load::Element* v, i64 keys, i64 columns,
                        i64 column, float* values, const typename Load::Element* next) {
  for (; column + NV * kWidth <= columns; column += NV * kWidth) {
    const typename Load::Element* b = v + column;
    float* c = values + column;
    const char* ahead = reinterpret_cast<const char*>(next + column * kKeys);
    multiply<Load, MR, NV, 1, 1, kKeys, kAhead>(p, &b, columns, keys, &c, columns, false, &ahead);
  }
  if constexpr (NV > 1) {
    if (column < columns)
      mix_columns<Load, MR, NV / 2, kAhead>(p, v, keys, columns, column, values, next);
  }
}

// s[...] *= scales[...], the scores or weights of a row.
inline void scale_row(float* s, const float* scales) {
  for (int j = 0; j < kKeys; j += kWidth) store(s + j, mul(load(s + j), load(scales + j)));
}

// The keys [lo, hi) of a block that a query sees.
struct Visible {
  i64 lo;
  i64 hi;
};
inline Visible visible(const AttendTask& t, i64 row, i64 block) {
  const i64 position = t.position + row / t.group - block * kKeys;
  const i64 lo = t.window > 0 ? larger(0, position - t.window + 1) : 0;
  return {smaller(lo, kKeys), larger(0, smaller(kKeys, position + 1))};
}

// Scales and masks a row of scores; gives the largest.
inline float scale_and_mask(float* s, float scale, Visible seen) {
  for (int j = 0; j < kKeys; j += kWidth) store(s + j, mul(load(s + j), set1(scale)));
  for (i64 j = 0; j < seen.lo; ++j) s[j] = kMinusInfinity;
  for (i64 j = seen.hi; j < kKeys; ++j) s[j] = kMinusInfinity;
  F peak = load(s);
  for (int j = kWidth; j < kKeys; j += kWidth) peak = max(load(s + j), peak);
  return largest(peak);
}

// A row that has seen no key has zeros for exp(s - peak), and NaN where a score is that.
inline float origin(float peak) { return peak == kMinusInfinity ? 0.0f : peak; }

// s = exp(s - peak); gives the sum.
inline float exp_row(float* s, float peak) {
  F total = zero();
  for (int j = 0; j < kKeys; j += kWidth) {
    const F e = exp(sub(load(s + j), set1(origin(peak))));
    store(s + j, e);
    total = add(total, e);
  }
  return sum(total);
}

inline float exp_one(float x) {
  alignas(64) float lanes[kWidth];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// Takes a row's scores of one block into its softmax: s becomes the weights.
inline void take_scores(const AttendTask& t, i64 row, float* s, Visible seen) {
  const float before = t.peak[row];
  const float here = scale_and_mask(s, t.scale, seen);
  const float peak = before > here ? before : here;
  const float added = exp_row(s, peak);
  if (peak == before || peak == kMinusInfinity) {
    t.total[row] += added;
    return;
  }
  const float keep = exp_one(before - peak);
  const i64 columns = value_stride(t.head_dim);
  t.peak[row] = peak;
  t.total[row] = t.total[row] * keep + added;
  float* v = t.values + row * columns;
  for (i64 j = 0; j < columns; j += kWidth) store(v + j, mul(load(v + j), set1(keep)));
}

// With kAhead this strip brings keys and values into the processor's cache; others of the task find them there.
template <class Load, int MR, bool kAhead>
void attend_strip(const AttendTask& t, i64 row, i64 block, const KvBlock<Load>& kv) {
  Visible seen[MR];
  i64 lo = kKeys, hi = 0;
  for (int r = 0; r < MR; ++r) {
    seen[r] = visible(t, row + r, block);
    lo = smaller(lo, seen[r].lo);
    hi = larger(hi, seen[r].hi);
  }
  if (lo >= hi) return;
  const i64 columns = value_stride(t.head_dim);
  alignas(64) float s[MR * kKeys];
  score_tile<Load, MR, kAhead>(t.packed_q + row * t.head_dim, kv.keys, t.head_dim, s, kv.values);
  for (int r = 0; r < MR; ++r) {
    if (kv.key_scales) scale_row(s + r * kKeys, kv.key_scales);
    take_scores(t, row + r, s + r * kKeys, seen[r]);
    if (kv.value_scales) scale_row(s + r * kKeys, kv.value_scales);
  }
  const KvBlock<Load> next = kv_block<Load>(t, block + 1 < t.block_end ? block + 1 : block);
  mix_columns<Load, MR, tile_vectors<MR>(), kAhead>(s, kv.values, hi, columns, 0,
                                                    t.values + row * columns, next.keys);
}

template <int MR>
void score_strip(const AttendTask& t, i64 row, const KvBlock<LoadF32>& kv, float* out) {
  out += row * kKeys;
  score_tile<LoadF32, MR, false>(t.packed_q + row * t.head_dim, kv.keys, t.head_dim, out, kv.keys);
  for (int r = 0; r < MR && kv.key_scales; ++r) scale_row(out + r * kKeys, kv.key_scales);
  for (int i = 0; i < MR * kKeys; i += kWidth) store(out + i, mul(load(out + i), set1(t.scale)));
}

template <int MR>
void mix_strip(const AttendTask& t, i64 row, const KvBlock<LoadF32>& kv, i64 keys,
               const float* weights) {
  alignas(64) float p[MR * kKeys];
  for (int r = 0; r < MR; ++r) {
    const float* from = weights + (row + r) * kKeys;
    for (i64 j = 0; j < keys; ++j) {
      p[r * kKeys + j] = kv.value_scales ? from[j] * kv.value_scales[j] : from[j];
    }
  }
  const i64 columns = value_stride(t.head_dim);
  mix_columns<LoadF32, MR, tile_vectors<MR>(), false>(p, kv.values, keys, columns, 0,
                                                      t.values + row * columns, kv.values);
}

// Calls the given function template for each strip of a task's rows.
#define INFINILM_FOR_STRIPS(task, call)                            \
  for (i64 strip = 0; strip < strip_count((task).rows); ++strip) { \
    const i64 row = strip_row((task).rows, strip);                 \
    switch (strip_row((task).rows, strip + 1) - row) {             \
      case 1:                                                      \
        call(1);                                                   \
        break;                                                     \
      case 2:                                                      \
        call(2);                                                   \
        break;                                                     \
      case 3:                                                      \
        call(3);                                                   \
        break;                                                     \
      case 4:                                                      \
        call(4);                                                   \
        break;                                                     \
      case 5:                                                      \
        call(5);                                                   \
        break;                                                     \
      default:                                                     \
        call(6);                                                   \
        break;                                                     \
    }                                                              \
  }

// All strips of a block: whether the first and the others ask for what comes next.
template <class Load, bool kAheadFirst, bool kAheadRest>
inline void attend_block(const AttendTask& t, i64 block, const KvBlock<Load>& kv) {
#define INFINILM_CALL(MR)                                           \
  row == 0 ? attend_strip<Load, MR, kAheadFirst>(t, row, block, kv) \
           : attend_strip<Load, MR, kAheadRest>(t, row, block, kv)
  INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
}

inline void attend_as_kept(const AttendTask& t, i64 block) {
  switch (t.format) {
    case KvFormat::F32:
      return attend_block<LoadF32, true, false>(t, block, kv_block<LoadF32>(t, block));
    case KvFormat::Bf16:
      return attend_block<LoadBf16, true, true>(t, block, kv_block<LoadBf16>(t, block));
    case KvFormat::Int8:
      return attend_block<LoadInt8, true, true>(t, block, kv_block<LoadInt8>(t, block));
  }
}

void attend(const AttendTask& t) noexcept {
  const i64 columns = value_stride(t.head_dim);
  for (i64 r = 0; r < t.rows; ++r) {
    t.peak[r] = kMinusInfinity;
    t.total[r] = 0.0f;
  }
  for (i64 i = 0; i < t.rows * columns; ++i) t.values[i] = 0.0f;
  const bool widened = t.format != KvFormat::F32 && t.rows > kMaxStrip;
  for (i64 block = t.block_begin; block < t.block_end; ++block) {
    if (widened) {
      attend_block<LoadF32, false, false>(t, block, wide_kv(t, block));
    } else {
      attend_as_kept(t, block);
    }
  }
}

void block_scores(const AttendTask& t, i64 block, float* out) noexcept {
  const KvBlock<LoadF32> kv = wide_kv(t, block);
#define INFINILM_CALL(MR) score_strip<MR>(t, row, kv, out)
  INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
}

void block_mix(const AttendTask& t, i64 block, i64 keys, const float* weights) noexcept {
  const KvBlock<LoadF32> kv = wide_kv(t, block);
#define INFINILM_CALL(MR) mix_strip<MR>(t, row, kv, keys, weights)
  INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
}

#undef INFINILM_FOR_STRIPS

void merge(const AttendTask& from, const AttendTask& to) noexcept {
  const i64 columns = value_stride(to.head_dim);
  for (i64 r = 0; r < to.rows; ++r) {
    const float a = to.peak[r], b = from.peak[r];
    const float peak = a > b ? a : b;
    const float keep = exp_one(a - origin(peak)), weight = exp_one(b - origin(peak));
    to.peak[r] = peak;
    to.total[r] = to.total[r] * keep + from.total[r] * weight;
    float* v = to.values + r * columns;
    const float* w = from.values + r * columns;
    for (i64 j = 0; j < columns; j += kWidth) {
      store(v + j, add(mul(load(v + j), set1(keep)), mul(load(w + j), set1(weight))));
    }
  }
}

void finish(const AttendTask& t, i64 row, float* y) noexcept {
  const float* v = t.values + row * value_stride(t.head_dim);
  const F total = set1(t.total[row] == 0.0f ? 1.0f : t.total[row]);
  for (i64 j = 0; j < t.head_dim; j += kWidth)
    store_some(y + j, div(load(v + j), total), t.head_dim - j);
}

}  // namespace infinilm::cpu::INFINILM_ISA
