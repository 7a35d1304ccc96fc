// Four floats: NEON as every 64-bit ARM processor has it.
#include <arm_neon.h>

#include <cstdint>

namespace infinilm::cpu::INFINILM_ISA {

constexpr int kWidth = 4;
constexpr int kVectors = 4;
constexpr int kPanelsAtOnce = 2;
constexpr int kPanelsPerTask = 4;
constexpr int kDepthBlock = 256;  // a panel's block is 16 KiB of L1
constexpr bool kNativeBf16 = false;

using F = float32x4_t;

inline F zero() { return vdupq_n_f32(0.0f); }
inline F set1(float x) { return vdupq_n_f32(x); }
inline F load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, F x) { vst1q_f32(p, x); }
inline F add(F a, F b) { return vaddq_f32(a, b); }
inline F sub(F a, F b) { return vsubq_f32(a, b); }
inline F mul(F a, F b) { return vmulq_f32(a, b); }
inline F div(F a, F b) { return vdivq_f32(a, b); }
inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
// The second operand if either is NaN, as everywhere; NEON's own would give NaN.
inline F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline F round(F x) { return vrndnq_f32(x); }
inline F pow2(F n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline float sum(F x) { return vaddvq_f32(x); }
inline float largest(F x) { return vmaxvq_f32(x); }

inline F bf16_even(const std::uint32_t* p) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(p), 16));
}
inline F bf16_odd(const std::uint32_t* p) {
  return vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p), vdupq_n_u32(0xffff0000u)));
}
inline F f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline F bf16(const std::uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
inline F int8(const std::int8_t* p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

template <int kBits>
inline F field(const std::uint32_t* p, int shift) {
  const uint32x4_t lanes = vshlq_u32(vld1q_u32(p), vdupq_n_s32(-shift));
  return vcvtq_f32_u32(vandq_u32(lanes, vdupq_n_u32((1u << kBits) - 1)));
}
inline F uint8(const std::uint8_t* p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

}  // namespace infinilm::cpu::INFINILM_ISA
