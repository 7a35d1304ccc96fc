// Row by row: norms, activations, sums, rotations, softmax. Sums have a fixed order that depends on the row's length only.

namespace infinilm::cpu::INFINILM_ISA {

inline F load_some(const float* p, i64 n) { return n >= kWidth ? load(p) : load_part(p, n); }
inline void store_some(float* p, F x, i64 n) {
  if (n >= kWidth) {
    store(p, x);
  } else {
    store_part(p, x, n);
  }
}

// y = x / sqrt(mean(x^2) + eps) * w
void rms_norm(const float* x, const float* w, float eps, i64 n, float* y) noexcept {
  constexpr int kLanes = 4;
  F sums[kLanes] = {zero(), zero(), zero(), zero()};
  i64 i = 0;
  for (; i + kLanes * kWidth <= n; i += kLanes * kWidth) {
    for (int j = 0; j < kLanes; ++j) {
      const F v = load(x + i + j * kWidth);
      sums[j] = fma(v, v, sums[j]);
    }
  }
  for (; i < n; i += kWidth) {
    const F v = load_some(x + i, n - i);
    sums[0] = fma(v, v, sums[0]);
  }
  const float square = sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  const F scale = set1(1.0f / __builtin_sqrtf(square / static_cast<float>(n) + eps));
  for (i = 0; i < n; i += kWidth) {
    store_some(y + i, mul(mul(load_some(x + i, n - i), scale), load_some(w + i, n - i)), n - i);
  }
}

template <Act kAct>
inline void act_mul_as(const float* gate, const float* up, i64 n, float* y) {
  for (i64 i = 0; i < n; i += kWidth) {
    store_some(y + i, mul(activate<kAct>(load_some(gate + i, n - i)), load_some(up + i, n - i)), n - i);
  }
}

// y = act(gate) * up
void act_mul(const float* gate, const float* up, Act act, i64 n, float* y) noexcept {
  switch (act) {
    case Act::Silu: return act_mul_as<Act::Silu>(gate, up, n, y);
    case Act::Gelu: return act_mul_as<Act::Gelu>(gate, up, n, y);
    case Act::GeluTanh: return act_mul_as<Act::GeluTanh>(gate, up, n, y);
    case Act::Relu: return act_mul_as<Act::Relu>(gate, up, n, y);
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

// In place; zeros for a row of -inf only.
void softmax(float* x, i64 n) noexcept {
  F peaks = set1(kMinusInfinity);
  i64 i = 0;
  for (; i + kWidth <= n; i += kWidth) peaks = max(peaks, load(x + i));
  float peak = largest(peaks);
  for (; i < n; ++i) peak = peak > x[i] ? peak : x[i];
  if (peak == kMinusInfinity) {
    for (i = 0; i < n; ++i) x[i] = 0.0f;
    return;
  }
  F sums = zero();
  float rest = 0.0f;
  for (i = 0; i + kWidth <= n; i += kWidth) {
    const F e = exp(sub(load(x + i), set1(peak)));
    store(x + i, e);
    sums = add(sums, e);
  }
  if (i < n) {
    store_part(x + i, exp(sub(load_part(x + i, n - i), set1(peak))), n - i);
    for (i64 j = i; j < n; ++j) rest += x[j];
  }
  const F total = set1(sum(sums) + rest);
  for (i = 0; i < n; i += kWidth) store_some(x + i, div(load_some(x + i, n - i), total), n - i);
}

}  // namespace infinilm::cpu::INFINILM_ISA
