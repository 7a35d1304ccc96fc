// Attention over blocks of 64 tokens: keys [D][64], values [64][value_stride(D)].
//
//   scores  [rows][64]  = q [rows][D] x keys     both with the register tiles of kernels_gemm.inl; the query heads
//   values  [rows][D]  += p [rows][64] x values  that share a key head are rows of one tile, so each key is read once
//
// Online softmax: a new largest score rescales what was summed before. A block in which a row sees no key leaves that
// row's bits as they are, so that a row does not feel the others in its tile.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_gemm.inl"
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
template <int MR, bool kAhead>
inline void score_tile(const float* q, const float* keys, i64 head_dim, float* out,
                       const float* next) {
  constexpr int NV = tile_vectors<MR>();
  for (int j = 0; j < kKeys; j += NV * kWidth) {
    const float* b = keys + j;
    float* c = out + j;
    const char* ahead = reinterpret_cast<const char*>(next + j * head_dim);
    multiply<LoadF32, MR, NV, 1, MR, 1, kAhead>(q, &b, kKeys, head_dim, &c, kKeys, true, &ahead);
  }
}

// values[r][...] += sum over t < keys of p[r][t] v[t][...], columns [column, columns)
template <int MR, int NV, bool kAhead>
inline void mix_columns(const float* p, const float* v, i64 keys, i64 columns, i64 column,
                        float* values, const float* next) {
  for (; column + NV * kWidth <= columns; column += NV * kWidth) {
    const float* b = v + column;
    float* c = values + column;
    const char* ahead = reinterpret_cast<const char*>(next + column * kKeys);
    multiply<LoadF32, MR, NV, 1, 1, kKeys, kAhead>(p, &b, columns, keys, &c, columns, false,
                                                   &ahead);
  }
  if constexpr (NV > 1) {
    if (column < columns)
      mix_columns<MR, NV / 2, kAhead>(p, v, keys, columns, column, values, next);
  }
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
  for (int j = kWidth; j < kKeys; j += kWidth) peak = max(peak, load(s + j));
  return largest(peak);
}

// s = exp(s - peak); gives the sum.
inline float exp_row(float* s, float peak) {
  F total = zero();
  for (int j = 0; j < kKeys; j += kWidth) {
    const F e = peak == kMinusInfinity ? zero() : exp(sub(load(s + j), set1(peak)));
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

// The task's first strip of rows brings keys and values into the cache, the others find them there.
template <int MR, bool kAhead>
void attend_strip(const AttendTask& t, i64 row, i64 block) {
  Visible seen[MR];
  i64 lo = kKeys, hi = 0;
  for (int r = 0; r < MR; ++r) {
    seen[r] = visible(t, row + r, block);
    lo = smaller(lo, seen[r].lo);
    hi = larger(hi, seen[r].hi);
  }
  if (lo >= hi) return;
  const float* keys = reinterpret_cast<const float*>(t.blocks[block] + t.k_offset);
  const float* values = reinterpret_cast<const float*>(t.blocks[block] + t.v_offset);
  const i64 columns = value_stride(t.head_dim);
  alignas(64) float s[MR * kKeys];
  score_tile<MR, kAhead>(t.packed_q + row * t.head_dim, keys, t.head_dim, s, values);
  for (int r = 0; r < MR; ++r) {
    const float before = t.peak[row + r];
    const float here = scale_and_mask(s + r * kKeys, t.scale, seen[r]);
    const float peak = before > here ? before : here;
    const float added = exp_row(s + r * kKeys, peak);
    if (peak == before || peak == kMinusInfinity) {
      t.total[row + r] += added;
      continue;
    }
    const float keep = exp_one(before - peak);
    t.peak[row + r] = peak;
    t.total[row + r] = t.total[row + r] * keep + added;
    float* v = t.values + (row + r) * columns;
    for (i64 j = 0; j < columns; j += kWidth) store(v + j, mul(load(v + j), set1(keep)));
  }
  const i64 after = block + 1 < t.block_end ? block + 1 : block;
  const float* next = reinterpret_cast<const float*>(t.blocks[after] + t.k_offset);
  mix_columns<MR, tile_vectors<MR>(), kAhead>(s, values, hi, columns, 0, t.values + row * columns,
                                              next);
}

template <int MR>
void score_strip(const AttendTask& t, i64 row, i64 block, float* out) {
  const float* keys = reinterpret_cast<const float*>(t.blocks[block] + t.k_offset);
  out += row * kKeys;
  score_tile<MR, false>(t.packed_q + row * t.head_dim, keys, t.head_dim, out, keys);
  for (int i = 0; i < MR * kKeys; i += kWidth) store(out + i, mul(load(out + i), set1(t.scale)));
}

template <int MR>
void mix_strip(const AttendTask& t, i64 row, i64 block, i64 keys, const float* weights) {
  const float* values = reinterpret_cast<const float*>(t.blocks[block] + t.v_offset);
  const i64 columns = value_stride(t.head_dim);
  mix_columns<MR, tile_vectors<MR>(), false>(weights + row * kKeys, values, keys, columns, 0,
                                             t.values + row * columns, values);
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

void attend(const AttendTask& t) noexcept {
  const i64 columns = value_stride(t.head_dim);
  for (i64 r = 0; r < t.rows; ++r) {
    t.peak[r] = kMinusInfinity;
    t.total[r] = 0.0f;
  }
  for (i64 i = 0; i < t.rows * columns; ++i) t.values[i] = 0.0f;
  for (i64 block = t.block_begin; block < t.block_end; ++block) {
#define INFINILM_CALL(MR) \
  row == 0 ? attend_strip<MR, true>(t, row, block) : attend_strip<MR, false>(t, row, block)
    INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
  }
}

void block_scores(const AttendTask& t, i64 block, float* out) noexcept {
#define INFINILM_CALL(MR) score_strip<MR>(t, row, block, out)
  INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
}

void block_mix(const AttendTask& t, i64 block, i64 keys, const float* weights) noexcept {
#define INFINILM_CALL(MR) mix_strip<MR>(t, row, block, keys, weights)
  INFINILM_FOR_STRIPS(t, INFINILM_CALL)
#undef INFINILM_CALL
}

#undef INFINILM_FOR_STRIPS

void merge(const AttendTask& from, const AttendTask& to) noexcept {
  const i64 columns = value_stride(to.head_dim);
  for (i64 r = 0; r < to.rows; ++r) {
    const float a = to.peak[r], b = from.peak[r];
    const float peak = a > b ? a : b;
    if (peak == kMinusInfinity) continue;
    const float keep = exp_one(a - peak), weight = exp_one(b - peak);
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
