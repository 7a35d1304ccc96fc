// Eight neighbouring columns of a row: how the formats become numbers.
#pragma once

#include "cuda/device.cuh"
#include "cuda/weight_layout.hpp"

namespace infinilm::cuda {

struct Eight {
  float v[8];
};

__device__ __forceinline__ Eight eight_of_bf16(const uint4& w) {
  return {{low_bf16(w.x), high_bf16(w.x), low_bf16(w.y), high_bf16(w.y), low_bf16(w.z),
           high_bf16(w.z), low_bf16(w.w), high_bf16(w.w)}};
}
__device__ __forceinline__ Eight eight_of_f16(const uint4& w) {
  return {{low_f16(w.x), high_f16(w.x), low_f16(w.y), high_f16(w.y), low_f16(w.z), high_f16(w.z),
           low_f16(w.w), high_f16(w.w)}};
}
__device__ __forceinline__ Eight eight_of_f32(const uint4& a, const uint4& b) {
  return {{__uint_as_float(a.x), __uint_as_float(a.y), __uint_as_float(a.z), __uint_as_float(a.w),
           __uint_as_float(b.x), __uint_as_float(b.y), __uint_as_float(b.z), __uint_as_float(b.w)}};
}

// 2^23 + n as a float has n in its lowest bits.
__device__ __forceinline__ float difference(unsigned code, float zero) {
  return __uint_as_float(0x4b000000u | code) - (8388608.0f + zero);
}
// code - zero, not yet scaled.
__device__ __forceinline__ Eight eight_of_q8(unsigned a, unsigned b, int zero) {
  Eight e;
  const auto z = static_cast<float>(zero);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    e.v[i] = difference(a >> (8 * i) & 0xffu, z);
    e.v[4 + i] = difference(b >> (8 * i) & 0xffu, z);
  }
  return e;
}
__device__ __forceinline__ Eight eight_of_q4(unsigned w, int zero) {
  Eight e;
  const auto z = static_cast<float>(zero);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    e.v[2 * i] = difference(w >> (4 * i) & 0xfu, z);
    e.v[2 * i + 1] = difference(w >> (4 * i + 16) & 0xfu, z);
  }
  return e;
}

// Four pairs of 16-bit floats.
struct Pairs {
  unsigned v[4];
};
// (v & mask) ^ with, in one instruction: left alone, the compiler takes two. Where `with` has no bit of the mask this is |.
__device__ __forceinline__ unsigned and_xor(unsigned v, unsigned mask, unsigned with) {
#if defined(__CUDA_ARCH__)
  unsigned r;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(r) : "r"(v), "r"(mask), "r"(with));
  return r;
#else
  return (v & mask) ^ with;
#endif
}

// Codes as float16 with an offset, exact: 1024 + n has n in its lowest bits, and 64 + n has a four-bit n above four others.
template <Layout kLayout>
inline constexpr float kCodeOffset = kLayout == Layout::Q4 ? 64.0f : 1024.0f;
__device__ __forceinline__ Pairs offset_pairs_of_q4(unsigned w) {
  constexpr unsigned kMask = 0x00f000f0u, k64 = 0x54005400u;
  return {{and_xor(w << 4, kMask, k64), and_xor(w, kMask, k64), and_xor(w >> 4, kMask, k64),
           and_xor(w >> 8, kMask, k64)}};
}
// Bytes 2 half and 2 half + 1 beside the exponent of 1024.
__device__ __forceinline__ unsigned offset_pair_of_q8(unsigned v, int half) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(v, 0x64646464u, half == 0 ? 0x4140u : 0x4342u);
#else
  v >>= 16 * half;
  return (v & 0xffu) | (v & 0xff00u) << 8 | 0x64006400u;
#endif
}
__device__ __forceinline__ Pairs offset_pairs_of_q8(unsigned a, unsigned b) {
  return {{offset_pair_of_q8(a, 0), offset_pair_of_q8(a, 1), offset_pair_of_q8(b, 0),
           offset_pair_of_q8(b, 1)}};
}

// Columns 8 piece … 8 piece + 7 of a row, scaled; those behind the matrix are zeros.
__device__ __forceinline__ Eight read_eight(const MatrixView& m, std::int64_t row, int piece) {
  Eight e = {};
  if (is_quantised(m.layout)) {
    const int column = piece * 8, in_unit = column % m.unit.columns;
    const int r = static_cast<int>(row % kTileRows), bits = m.layout == Layout::Q4 ? 4 : 8;
    const std::byte* unit = m.data + row / kTileRows * m.unit.tile_bytes() +
                            static_cast<std::int64_t>(column / m.unit.columns) * m.unit.bytes;
    const int run = in_unit / m.unit.run_columns();
    const float scale =
        f16_to_float(*reinterpret_cast<const std::uint16_t*>(unit + scale_place(m.unit, r, run)));
    const int zero = m.unit.zeros
                         ? *reinterpret_cast<const std::uint8_t*>(unit + zero_place(m.unit, r, run))
                         : m.unit.middle;
    const auto* codes = reinterpret_cast<const unsigned*>(unit + code_place(bits, r, in_unit).byte);
    e = bits == 4 ? eight_of_q4(codes[0], zero) : eight_of_q8(codes[0], codes[1], zero);
#pragma unroll
    for (int i = 0; i < 8; ++i) e.v[i] *= scale;
    return e;
  }
  const int size = m.layout == Layout::F32 ? 4 : 2;
  const std::byte* p = m.data + row * m.row_bytes + static_cast<std::int64_t>(piece) * 8 * size;
  const std::int64_t left = m.row_bytes - static_cast<std::int64_t>(piece) * 8 * size;
  const auto* fours = reinterpret_cast<const uint4*>(p);
  const uint4 first = left > 0 ? fours[0] : zero4();
  if (m.layout == Layout::Bf16) return eight_of_bf16(first);
  if (m.layout == Layout::F16) return eight_of_f16(first);
  return eight_of_f32(first, left > 16 ? fours[1] : zero4());
}

}  // namespace infinilm::cuda
