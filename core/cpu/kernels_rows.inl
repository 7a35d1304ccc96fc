// Row by row: norms, activations, sums, rotations, softmax. Sums have a fixed order that depends on the row's length only.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_math.inl"

namespace infinilm::cpu::INFINILM_ISA {

inline F load_some(const float* p, i64 n) { return n >= kWidth ? load(p) : load_part(p, n); }
inline void store_some(float* p, F x, i64 n) {
  if (n >= kWidth) {
    store(p, x);
  } else {
    store_part(p, x, n);
  }
}

// y = x / sqrt(mean(x^2) + eps) * w. The squares are summed in at least 32 lanes, so that their chains stay short.
void rms_norm(const float* x, const float* w, float eps, i64 n, float* y) noexcept {
  constexpr int kSums = kWidth < 32 ? 32 / kWidth : 1;
  F sums[kSums];
  for (int j = 0; j < kSums; ++j) sums[j] = zero();
  i64 i = 0;
  for (; i + kSums * kWidth <= n; i += kSums * kWidth) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) {
      const F v = load(x + i + j * kWidth);
      sums[j] = fma(v, v, sums[j]);
    }
  }
  for (; i < n; i += kWidth) {
    const F v = load_some(x + i, n - i);
    sums[0] = fma(v, v, sums[0]);
  }
  F all = sums[0];
  for (int j = 1; j < kSums; ++j) all = add(all, sums[j]);
  const F scale = set1(1.0f / __builtin_sqrtf(sum(all) / static_cast<float>(n) + eps));
  for (i = 0; i < n; i += kWidth) {
    store_some(y + i, mul(mul(load_some(x + i, n - i), scale), load_some(w + i, n - i)), n - i);
  }
}

template <Act kAct>
inline void act_mul_as(const float* gate, const float* up, i64 n, float* y) {
  for (i64 i = 0; i < n; i += kWidth) {
    store_some(y + i, mul(activate<kAct>(load_some(gate + i, n - i)), load_some(up + i, n - i)),
               n - i);
  }
}

// y = act(gate) * up
void act_mul(const float* gate, const float* up, Act act, i64 n, float* y) noexcept {
  switch (act) {
    case Act::Silu:
      return act_mul_as<Act::Silu>(gate, up, n, y);
    case Act::Gelu:
      return act_mul_as<Act::Gelu>(gate, up, n, y);
    case Act::GeluTanh:
      return act_mul_as<Act::GeluTanh>(gate, up, n, y);
    case Act::Relu:
      return act_mul_as<Act::Relu>(gate, up, n, y);
  }
}

// y += x
void add_row(const float* x, i64 n, float* y) noexcept {
  for (i64 i = 0; i < n; i += kWidth) {
    store_some(y + i, add(load_some(y + i, n - i), load_some(x + i, n - i)), n - i);
  }
}

// One head: (a, b) -> (a cos - b sin, b cos + a sin), a = x[i], b = x[i + half].
void rope(float* x, const float* cos, const float* sin, i64 half) noexcept {
  for (i64 i = 0; i < half; i += kWidth) {
    const i64 n = half - i;
    const F a = load_some(x + i, n);
    const F b = load_some(x + half + i, n);
    const F c = load_some(cos + i, n);
    const F s = load_some(sin + i, n);
    store_some(x + i, sub(mul(a, c), mul(b, s)), n);
    store_some(x + half + i, add(mul(b, c), mul(a, s)), n);
  }
}

constexpr float kMinusInfinity = -__builtin_inff();

// The first n floats at p, -inf behind them if they do not fill a vector.
inline F load_masked(const float* p, i64 n) {
  if (n >= kWidth) return load(p);
  alignas(64) float lanes[kWidth];
  for (i64 i = 0; i < kWidth; ++i) lanes[i] = i < n ? p[i] : kMinusInfinity;
  return load(lanes);
}

// In place; zeros for a row of -inf only. Entries of -inf at the end of a row change no other bits.
void softmax(float* x, i64 n) noexcept {
  F peaks = set1(kMinusInfinity);
  for (i64 i = 0; i < n; i += kWidth) peaks = max(peaks, load_masked(x + i, n - i));
  const float peak = largest(peaks);
  if (peak == kMinusInfinity) {
    for (i64 i = 0; i < n; ++i) x[i] = 0.0f;
    return;
  }
  F sums = zero();
  for (i64 i = 0; i < n; i += kWidth) {
    const F e = exp(sub(load_masked(x + i, n - i), set1(peak)));
    sums = add(sums, e);
    store_some(x + i, e, n - i);
  }
  const F total = set1(sum(sums));
  for (i64 i = 0; i < n; i += kWidth) store_some(x + i, div(load_some(x + i, n - i), total), n - i);
}

}  // namespace infinilm::cpu::INFINILM_ISA
