// Keys and values of one head in one block of the cache: how they are written, and how the tiles read them.
//
//   F32   as they are
//   Bf16  rounded to nearest even
//   Int8  q = round(x / scale), nearest even, scale = largest magnitude of the token's D values / 127; what is read is q, and the
//         scale is multiplied in afterwards: into a score for keys, into a softmax weight for values
//
// A token's elements depend on that token alone, so that a sequence gives the same bits in one step and in many.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_gemm.inl"
#include "cpu/kernels_pack.inl"
#include "cpu/kernels_rows.inl"

namespace infinilm::cpu::INFINILM_ISA {

struct LoadBf16 {
  using Element = u16;
  static F at(const u16* p) { return bf16(p); }
};
struct LoadInt8 {
  using Element = i8;
  static F at(const i8* p) { return int8(p); }
};

// What the tiles read of a block; null scales for none.
template <class Load>
struct KvBlock {
  const typename Load::Element* keys;    // [D][64]
  const typename Load::Element* values;  // [64][value_stride(D)]
  const float* key_scales;
  const float* value_scales;
};

inline float* scales_at(std::byte* elements, i64 count) {
  return reinterpret_cast<float*>(elements + count);
}
inline const float* scales_at(const std::byte* elements, i64 count) {
  return reinterpret_cast<const float*>(elements + count);
}

template <class Load>
inline KvBlock<Load> kv_block(const AttendTask& t, i64 block) {
  const std::byte* keys = t.blocks[block] + t.k_offset;
  const std::byte* values = t.blocks[block] + t.v_offset;
  const bool scaled = t.format == KvFormat::Int8;
  return {reinterpret_cast<const typename Load::Element*>(keys),
          reinterpret_cast<const typename Load::Element*>(values),
          scaled ? scales_at(keys, t.head_dim * kKeys) : nullptr,
          scaled ? scales_at(values, value_stride(t.head_dim) * kKeys) : nullptr};
}

template <class Load>
inline void widen_elements(const typename Load::Element* from, i64 count, float* out) {
  for (i64 i = 0; i < count; i += kWidth) store(out + i, Load::at(from + i));
}

// A block as float32 in t.wide: worth its price where several strips of rows read it.
template <class Load>
inline KvBlock<LoadF32> widen_kv(const AttendTask& t, i64 block) {
  const KvBlock<Load> b = kv_block<Load>(t, block);
  float* values = t.wide + t.head_dim * kKeys;
  widen_elements<Load>(b.keys, t.head_dim * kKeys, t.wide);
  widen_elements<Load>(b.values, value_stride(t.head_dim) * kKeys, values);
  return {t.wide, values, b.key_scales, b.value_scales};
}

inline KvBlock<LoadF32> wide_kv(const AttendTask& t, i64 block) {
  switch (t.format) {
    case KvFormat::Bf16:
      return widen_kv<LoadBf16>(t, block);
    case KvFormat::Int8:
      return widen_kv<LoadInt8>(t, block);
    default:
      return kv_block<LoadF32>(t, block);
  }
}

struct KeepF32 {
  using Element = float;
  static float round(float x, float) { return x; }
};
struct RoundBf16 {
  using Element = u16;
  static u16 round(float x, float) { return static_cast<u16>(to_bf16(x)); }
};
struct RoundInt8 {
  using Element = i8;
  // A scale that is no number stands for a token with infinities or NaN, of which no element is kept.
  static i8 round(float x, float scale) {
    if (!(scale > 0.0f)) return 0;
    const float q = (x / scale + 12582912.0f) - 12582912.0f;  // nearest even
    return static_cast<i8>(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q);
  }
};

// NaN if x has infinities or NaN: then the token's scores or values come out as NaN too.
inline float int8_scale(const float* x, i64 n) {
  F peak = zero(), spoilt = zero();
  for (i64 i = 0; i < n; i += kWidth) {
    const F v = load_some(x + i, n - i);
    peak = max(peak, max(v, sub(zero(), v)));
    spoilt = fma(v, zero(), spoilt);
  }
  return largest(peak) / 127.0f + sum(spoilt);
}

// Keys are transposed, values keep their order and get zeros behind them.
template <class Round>
inline void write_as(const KvWrite& w) {
  using Element = typename Round::Element;
  constexpr bool kScaled = sizeof(Element) == 1;
  const i64 stride = value_stride(w.head_dim);
  Element* keys = reinterpret_cast<Element*>(w.keys) + w.first;
  Element* values = reinterpret_cast<Element*>(w.values) + w.first * stride;
  for (i64 t = 0; t < w.tokens; ++t) {
    const float* k = w.k + t * w.k_stride;
    const float* v = w.v + t * w.v_stride;
    float k_scale = 1.0f, v_scale = 1.0f;
    if constexpr (kScaled) {
      k_scale = scales_at(w.keys, w.head_dim * kKeys)[w.first + t] = int8_scale(k, w.head_dim);
      v_scale = scales_at(w.values, stride * kKeys)[w.first + t] = int8_scale(v, w.head_dim);
    }
    for (i64 d = 0; d < w.head_dim; ++d) keys[d * kKeys + t] = Round::round(k[d], k_scale);
    for (i64 d = 0; d < w.head_dim; ++d) values[t * stride + d] = Round::round(v[d], v_scale);
    for (i64 d = w.head_dim; d < stride; ++d) values[t * stride + d] = Element{0};
  }
}

void kv_write(const KvWrite& w) noexcept {
  switch (w.format) {
    case KvFormat::F32:
      return write_as<KeepF32>(w);
    case KvFormat::Bf16:
      return write_as<RoundBf16>(w);
    case KvFormat::Int8:
      return write_as<RoundInt8>(w);
  }
}

}  // namespace infinilm::cpu::INFINILM_ISA
