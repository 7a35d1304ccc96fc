// Layouts: weights into panels and back, rows of activations into strips. See kernels.hpp for the pictures.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_quant.inl"

namespace infinilm::cpu::INFINILM_ISA {

inline u32 float_bits(float x) { return __builtin_bit_cast(u32, x); }
inline float bits_float(u32 u) { return __builtin_bit_cast(float, u); }

// Nearest even; NaN stays NaN.
inline u32 to_bf16(float x) {
  const u32 u = float_bits(x);
  const u32 rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  return (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40u) : rounded;
}

inline float from_f16(u16 h) {
  const u32 rest = h & 0x7fffu;
  const u32 sign = (h & 0x8000u) << 16;
  if (rest >= 0x7c00u) return bits_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  return bits_float(sign | float_bits(bits_float(rest << 13) * 0x1p112f));
}

template <class T>
inline T read(const std::byte* p, i64 index) {
  T value;
  __builtin_memcpy(&value, p + index * static_cast<i64>(sizeof(T)), sizeof(T));
  return value;
}

inline float read_float(const std::byte* p, Format format, i64 index) {
  if (format == Format::F32) return read<float>(p, index);
  if (format == Format::F16) return from_f16(read<u16>(p, index));
  return bits_float(static_cast<u32>(read<u16>(p, index)) << 16);
}

// Position of element (k, n) in a panel of `format`, in elements.
inline i64 panel_index(Format format, i64 k, int n) {
  return format == Format::Bf16 ? (k / 2 * kNr + n) * 2 + k % 2 : k * kNr + n;
}

// Columns are taken 32 at a time: that many elements of each row are a cache line or two, and what is written stays in L1.
constexpr i64 kPackColumns = 32;

// F32 and F16, as they are.
template <class Element>
inline void transpose_panel(const PackPanel& p) {
  Element* panel = reinterpret_cast<Element*>(p.panel);
  for (i64 k0 = 0; k0 < p.depth; k0 += kPackColumns) {
    const i64 k1 = smaller(k0 + kPackColumns, p.depth);
    for (int n = 0; n < p.rows; ++n) {
      for (i64 k = k0; k < k1; ++k) panel[k * kNr + n] = read<Element>(p.source, n * p.depth + k);
    }
  }
}

// To Bf16: convert(element) gives its 16 bits, two of which are written at a time.
template <class From, class Convert>
inline void transpose_pairs(const PackPanel& p, Convert convert) {
  u32* panel = reinterpret_cast<u32*>(p.panel);
  const i64 even = p.depth / 2 * 2;
  for (i64 k0 = 0; k0 < even; k0 += kPackColumns) {
    const i64 k1 = smaller(k0 + kPackColumns, even);
    for (int n = 0; n < p.rows; ++n) {
      for (i64 k = k0; k < k1; k += 2) {
        const u32 first = convert(read<From>(p.source, n * p.depth + k));
        const u32 second = convert(read<From>(p.source, n * p.depth + k + 1));
        panel[k / 2 * kNr + n] = first | second << 16;
      }
    }
  }
  for (int n = 0; n < p.rows && even < p.depth; ++n) {
    panel[even / 2 * kNr + n] = convert(read<From>(p.source, n * p.depth + even));
  }
}

void pack_panel(const PackPanel& p) noexcept {
  const i64 depth = p.format == Format::Bf16 ? padded(p.depth) : p.depth;
  const i64 size = p.format == Format::F32 ? 4 : 2;
  if (p.rows < kNr || depth != p.depth) {
    __builtin_memset(p.panel, 0, static_cast<std::size_t>(depth * kNr * size));
  }
  if (p.format == Format::F32) return transpose_panel<u32>(p);
  if (p.format == Format::F16) return transpose_panel<u16>(p);
  switch (p.source_format) {
    case Format::F32:
      return transpose_pairs<float>(p, [](float v) { return to_bf16(v); });
    case Format::F16:
      return transpose_pairs<u16>(p, [](u16 v) { return to_bf16(from_f16(v)); });
    default:
      return transpose_pairs<u16>(p, [](u16 v) { return static_cast<u32>(v); });
  }
}

void unpack_row(const std::byte* panel, Format format, i64 depth, int n, std::byte* out) noexcept {
  const i64 size = format == Format::F32 ? 4 : 2;
  for (i64 k = 0; k < depth; ++k) {
    __builtin_memcpy(out + k * size, panel + panel_index(format, k, n) * size,
                     static_cast<std::size_t>(size));
  }
}

void widen_row(const std::byte* panel, Format format, i64 depth, int n, float* out) noexcept {
  for (i64 k = 0; k < depth; ++k) out[k] = read_float(panel, format, panel_index(format, k, n));
}

// One strip, columns [k0, k0 + depth): out[k][r], zeros for the columns from `valid` on.
inline void pack_strip(const float* x, i64 stride, i64 rows, i64 depth, i64 valid, bool round,
                       float* out) {
  for (i64 k = 0; k < valid; ++k) {
    for (i64 r = 0; r < rows; ++r) {
      const float v = x[r * stride + k];
      out[k * rows + r] = round ? bits_float(to_bf16(v) << 16) : v;
    }
  }
  for (i64 i = valid * rows; i < depth * rows; ++i) out[i] = 0.0f;
}

// The same as pairs of bfloat16 in 32 bits: out[k / 2][r].
inline void pack_strip_pairs(const float* x, i64 stride, i64 rows, i64 depth, i64 valid, u32* out) {
  i64 k = 0;
#ifdef INFINILM_NATIVE_BF16
  constexpr i64 kPairs = kWidth;
  for (; k + 2 * kPairs <= valid; k += 2 * kPairs) {
    alignas(64) u32 pairs[kMaxStrip][kPairs];
    for (i64 r = 0; r < rows; ++r) _mm512_store_si512(pairs[r], round_pairs(x + r * stride + k));
    for (i64 i = 0; i < kPairs; ++i)
      for (i64 r = 0; r < rows; ++r) out[(k / 2 + i) * rows + r] = pairs[r][i];
  }
#endif
  for (; k < depth; k += 2) {
    for (i64 r = 0; r < rows; ++r) {
      const float* p = x + r * stride + k;
      const u32 second = k + 1 < valid ? to_bf16(p[1]) : 0;
      out[k / 2 * rows + r] = to_bf16(p[0]) | second << 16;
    }
  }
}

// Strips of whole rows for the matrix unit: for each kDepthStep of K, [rows][kDepthStep] bfloat16.
inline void pack_for_tiles(const PackRows& p) {
  const i64 all = padded(p.depth);
  for (i64 strip = p.strip_begin; strip < p.strip_end; ++strip) {
    const i64 row = strip_row(p.rows, strip, kRoundedStrip);
    const i64 rows = strip_row(p.rows, strip + 1, kRoundedStrip) - row;
    u16* out = static_cast<u16*>(p.out) + row * all;
    for (i64 r = 0; r < rows; ++r) {
      const float* x = p.x + (row + r) * p.stride;
      for (i64 k0 = 0; k0 < all; k0 += kDepthStep) {
        u16* to = out + k0 * rows + r * kDepthStep;
#ifdef INFINILM_AMX
        if (k0 + kDepthStep <= p.depth) {
          _mm512_storeu_si512(to, round_pairs(x + k0));
          continue;
        }
#endif
        for (i64 k = 0; k < kDepthStep; ++k) {
          to[k] = k0 + k < p.depth ? static_cast<u16>(to_bf16(x[k0 + k])) : u16{0};
        }
      }
    }
  }
}

void pack_rows(const PackRows& p) noexcept {
#ifdef INFINILM_NATIVE_BF16
  if (p.planes != 0) return pack_integers(p);
#endif
  if (kTiles && p.round_bf16) return pack_for_tiles(p);
  const i64 all = padded(p.depth);
  const bool pairs = kNativeBf16 && p.round_bf16;
  for (i64 k0 = 0; k0 < all; k0 += kDepthBlock) {
    const i64 depth = smaller(kDepthBlock, all - k0);
    const i64 valid = smaller(kDepthBlock, p.depth - k0);
    for (i64 strip = p.strip_begin; strip < p.strip_end; ++strip) {
      const i64 row = strip_row(p.rows, strip);
      const i64 rows = strip_row(p.rows, strip + 1) - row;
      const float* x = p.x + row * p.stride + k0;
      const i64 offset = k0 * p.rows + row * depth;
      if (pairs) {
        pack_strip_pairs(x, p.stride, rows, depth, valid, static_cast<u32*>(p.out) + offset / 2);
      } else {
        pack_strip(x, p.stride, rows, depth, valid, p.round_bf16,
                   static_cast<float*>(p.out) + offset);
      }
    }
  }
}

}  // namespace infinilm::cpu::INFINILM_ISA
