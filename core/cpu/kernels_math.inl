// exp and the activation functions, lane by lane: what a lane gives does not depend on where it stands.
#pragma once

#include "cpu/kernels_base.inl"

namespace infinilm::cpu::INFINILM_ISA {

// e^x to about 1 ulp (Cephes): x = n ln 2 + r, e^r by a polynomial. 0 for -inf, inf above 88.73, NaN for NaN.
inline F exp(F x) {
  x = max(set1(-110.0f), min(set1(90.0f), x));
  const F n = round(mul(x, set1(1.44269504f)));
  F r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  // In two steps, so that neither factor leaves the range of exponents where the product does not.
  const F half = round(mul(n, set1(0.5f)));
  return mul(mul(p, pow2(half)), pow2(sub(n, half)));
}

inline F silu(F x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

// x/2 (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
inline F gelu_tanh(F x) {
  const F cubic = fma(mul(mul(x, x), set1(0.044715f)), x, x);
  return div(x, add(set1(1.0f), exp(mul(cubic, set1(-1.5957691216f)))));
}

// x/2 erfc(-x / sqrt 2); erfc(z) = t e^(-z^2 + P(t)), t = 1 / (1 + z/2) for z >= 0, relative error 1.2e-7
// (Press et al., Numerical Recipes, 6.2).
inline F gelu(F x) {
  const F z = mul(max(x, sub(zero(), x)), set1(0.70710678f));
  const F t = div(set1(1.0f), fma(z, set1(0.5f), set1(1.0f)));
  F p = set1(0.17087277f);
  p = fma(p, t, set1(-0.82215223f));
  p = fma(p, t, set1(1.48851587f));
  p = fma(p, t, set1(-1.13520398f));
  p = fma(p, t, set1(0.27886807f));
  p = fma(p, t, set1(-0.18628806f));
  p = fma(p, t, set1(0.09678418f));
  p = fma(p, t, set1(0.37409196f));
  p = fma(p, t, set1(1.00002368f));
  p = fma(p, t, set1(-1.26551223f));
  const F tail = mul(mul(set1(0.5f), t), exp(fma(sub(zero(), z), z, p)));  // Phi(-|x|)
  // x Phi(x) = max(x, 0) - |x| Phi(-|x|); infinity times the tail's zero would be NaN
  return sub(max(zero(), x), mul(min(set1(1e30f), max(x, sub(zero(), x))), tail));
}

template <Act kAct>
inline F activate(F x) {
  if constexpr (kAct == Act::Silu) return silu(x);
  if constexpr (kAct == Act::Gelu) return gelu(x);
  if constexpr (kAct == Act::GeluTanh) return gelu_tanh(x);
  if constexpr (kAct == Act::Relu) return max(zero(), x);
}

}  // namespace infinilm::cpu::INFINILM_ISA
