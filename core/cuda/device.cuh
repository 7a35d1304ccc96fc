// What kernels are made of: loads, 16-bit floats, sums over a warp, tensor-core products, order between launches.
//
// Order: launches overlap. A kernel may start while the previous one still runs, so that it can load weights, and must call
// `wait_for_previous` in every thread before it reads or writes anything that another kernel writes (who only brings weights need not). Since all of them do, a
// kernel that has been waited for has itself waited for all before it. (One reads earlier what a step before this one wrote: see
// attention_token.cu. And what was uploaded may be read at once: the kernel after an upload does not overlap, see Context::upload.) `let_next_start` comes first, unless there is a reason: the next one gets what room there is once every
// block of this one has called it or ended.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(INFINILM_CUDA_EMULATED)
#include "base/half.hpp"
#include "cuda/tests/emulation.hpp"
#define INFINILM_SHARED_MEMORY(name) \
  unsigned char* name = static_cast<unsigned char*>(emulation::dynamic_shared())
#else
#include <cuda_runtime.h>
#define INFINILM_SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#endif

namespace infinilm::cuda {

inline constexpr unsigned kAll = 0xffffffffu;
inline constexpr float kMinusInfinity = -__builtin_inff();

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % 32); }
// One lane of a warp, all of which ask: always the same. The compiler knows that it is one.
__device__ __forceinline__ bool is_elected() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  unsigned elected = 0;
  asm volatile(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(elected));
  return elected != 0;
#else
  return lane_index() == 0;
#endif
}
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / 32); }

__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// y + x into y, without waiting for y. Less than 2^-126 counts as zero.
__device__ __forceinline__ void add_to(float* y, float x) {
#if defined(__CUDA_ARCH__)
  asm volatile("red.global.add.f32 [%0], %1;" ::"l"(y), "f"(x) : "memory");
#else
  *y += x;
#endif
}

// Where something lies in shared memory. A pointer to it is made anew from where shared memory begins, which takes long to ask for; an address that
// is kept() is not.
#if defined(INFINILM_CUDA_EMULATED)
using SharedAddress = std::uintptr_t;
inline SharedAddress shared_address(const void* p) { return reinterpret_cast<SharedAddress>(p); }
inline unsigned char* shared_pointer(SharedAddress a) {
  return reinterpret_cast<unsigned char*>(a);
}
#else
using SharedAddress = unsigned;
__device__ __forceinline__ SharedAddress shared_address(const void* p) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ unsigned char* shared_pointer(SharedAddress a) {
  return static_cast<unsigned char*>(__cvta_shared_to_generic(a));
}
#endif
// The same number, of which the compiler does not know how it came about: it keeps it in a register, where it would compute it again.
template <class T>
__device__ __forceinline__ T kept(T x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// What all lanes of a warp have, of which the compiler does not know it: it lets products overlap only where it is certain that all threads
// come along.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(kAll, x, 0); }

// For up to twice so many nanoseconds, where launches overlap.
__device__ __forceinline__ void pause(unsigned nanoseconds) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __nanosleep(nanoseconds);
#else
  static_cast<void>(nanoseconds);
#endif
}

// Asks for a line of 128 bytes, for whoever reads it soon.
__device__ __forceinline__ void prefetch_line(const void* p) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
  static_cast<void>(p);
#endif
}

// The larger of two, leaving signs away; NaN where one of them is.
__device__ __forceinline__ float larger_size(float a, float b) {
#if defined(__CUDA_ARCH__)
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(fabsf(a)), "f"(fabsf(b)));
  return larger;
#else
  return a != a || fabsf(a) > fabsf(b) ? fabsf(a) : fabsf(b);
#endif
}

__device__ __forceinline__ uint4 zero4() { return make_uint4(0, 0, 0, 0); }
__device__ __forceinline__ float4 zero_four() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
__device__ __forceinline__ float4 load_four(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

// ---- 16-bit floats
__device__ __forceinline__ float low_bf16(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(unsigned pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ float bf16_to_float(std::uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

// To nearest even, a in the lower half; NaN stays NaN.
__device__ __forceinline__ unsigned pack_bf16(float a, float b) {
#if defined(__CUDA_ARCH__)
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
  return pair;
#else
  const auto round = [](float x) {
    const unsigned u = __float_as_uint(x);
    if (x != x) return (u >> 16) | 0x40u;
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  };
  return round(a) | round(b) << 16;
#endif
}

__device__ __forceinline__ float f16_to_float(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#elif defined(INFINILM_CUDA_EMULATED)
  return from_f16(bits);
#else
  return 0.0f * bits;  // the compiler's pass for the host, which never runs this
#endif
}
__device__ __forceinline__ float low_f16(unsigned pair) {
  return f16_to_float(static_cast<std::uint16_t>(pair & 0xffffu));
}
__device__ __forceinline__ float high_f16(unsigned pair) {
  return f16_to_float(static_cast<std::uint16_t>(pair >> 16));
}

// To nearest even, a in the lower half.
__device__ __forceinline__ unsigned pack_f16(float a, float b) {
#if defined(__CUDA_ARCH__)
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
  return pair;
#elif defined(INFINILM_CUDA_EMULATED)
  return static_cast<unsigned>(infinilm::to_f16(a)) | static_cast<unsigned>(infinilm::to_f16(b))
                                                          << 16;
#else
  return static_cast<unsigned>(a + b);  // the compiler's pass for the host, which never runs this
#endif
}

__device__ __forceinline__ unsigned twice_f16(float x) { return pack_f16(x, x); }
// Of each half.
__device__ __forceinline__ unsigned subtract_f16(unsigned a, unsigned b) {
#if defined(__CUDA_ARCH__)
  unsigned difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
#else
  return pack_f16(low_f16(a) - low_f16(b), high_f16(a) - high_f16(b));
#endif
}

// The two 16-bit types by one name.
template <bool kF16>
__device__ __forceinline__ unsigned pack_half(float a, float b) {
  if constexpr (kF16) return pack_f16(a, b);
  return pack_bf16(a, b);
}
template <bool kF16>
__device__ __forceinline__ std::uint16_t to_half(float x) {
  return static_cast<std::uint16_t>(pack_half<kF16>(x, 0.0f) & 0xffffu);
}
template <bool kF16>
__device__ __forceinline__ float half_to_float(std::uint16_t bits) {
  if constexpr (kF16) return f16_to_float(bits);
  return bf16_to_float(bits);
}

// ---- a warp
__device__ __forceinline__ float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(kAll, x, mask);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, mask));
  return x;
}

// The sum over all threads of a block of at most 1024, the same for each of them. Ends with a barrier.
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float sums[32];
  x = warp_sum(x);
  __syncthreads();
  if (lane_index() == 0) sums[warp_index()] = x;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = lane_index() < warps ? sums[lane_index()] : 0.0f;
  return warp_sum(x);
}
__device__ __forceinline__ float block_max(float x) {
  __shared__ float peaks[32];
  x = warp_max(x);
  __syncthreads();
  if (lane_index() == 0) peaks[warp_index()] = x;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = lane_index() < warps ? peaks[lane_index()] : kMinusInfinity;
  return warp_max(x);
}

// ---- rotary positions
// A pair (x[i], x[i + D/2]) of a head, and the angle that its token turns it by.
struct RotaryPair {
  float a = 0.0f, b = 0.0f, cos = 1.0f, sin = 0.0f;

  __device__ __forceinline__ float first() const { return a * cos - b * sin; }
  __device__ __forceinline__ float second() const { return b * cos + a * sin; }
};

// ---- tensor cores
// d += a b for a [16, 16] and b [16, 8] of 16-bit floats and d [16, 8] of float32. With g = lane / 4 and t = lane % 4:
//   a[0]: (g, 2t..), a[1]: (g + 8, 2t..), a[2]: (g, 2t + 8..), a[3]: (g + 8, 2t + 8..)   two neighbouring k each
//   b[0]: (2t.., g), b[1]: (2t + 8.., g)
//   d[0], d[1]: (g, 2t), (g, 2t + 1); d[2], d[3]: (g + 8, …)
#if !defined(INFINILM_CUDA_EMULATED)
template <bool kF16>
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
#if defined(__CUDA_ARCH__)
  if constexpr (kF16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}
// The same for a [16, 32] and b [32, 8] of signed bytes, four neighbouring k where there are two above, and d of whole numbers.
__device__ __forceinline__ void multiply_bytes(int (&d)[4], const unsigned (&a)[4], unsigned b0,
                                               unsigned b1) {
#if defined(__CUDA_ARCH__)
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
#else
// `element(word, i)`: number i of the kIn elements of a word.
template <int kIn, class Sum, class Element>
void multiply_words(Sum (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                    Element element) {
  struct Operands {
    unsigned a[4], b[2];
  };
  const int g = lane_index() / 4, t = lane_index() % 4;
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulation::exchange(mine, [&](auto at) {
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i / 2) * 8, column = 2 * t + i % 2;
      for (int k = 0; k < 8 * kIn; ++k) {
        const int half = k / (4 * kIn), from = k % (4 * kIn) / kIn;
        const auto from_a = at(static_cast<std::size_t>(row % 8 * 4 + from));
        const auto from_b = at(static_cast<std::size_t>(column * 4 + from));
        d[i] += element(from_a.a[row / 8 + half * 2], k % kIn) * element(from_b.b[half], k % kIn);
      }
    }
    return 0;
  });
}
template <bool kF16>
void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  multiply_words<2>(d, a, b0, b1, [](unsigned pair, int i) {
    return half_to_float<kF16>(static_cast<std::uint16_t>(pair >> (16 * i)));
  });
}
inline void multiply_bytes(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  multiply_words<4>(d, a, b0, b1, [](unsigned word, int i) {
    return static_cast<int>(static_cast<std::int8_t>(word >> (8 * i) & 0xffu));
  });
}
#endif

// Four 8x8 matrices of 16-bit elements from shared memory; lane i names row i % 8 of matrix i / 8, 16 bytes. Lane (g, t) gets
// (g, 2t), (g, 2t + 1) of each; transposed: (2t, g), (2t + 1, g).
template <bool kTransposed>
__device__ __forceinline__ uint4 load_matrices(const void* row) {
#if defined(__CUDA_ARCH__)
  uint4 v;
  const unsigned address = shared_address(row);
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
  }
  return v;
#elif defined(INFINILM_CUDA_EMULATED)
  const int g = lane_index() / 4, t = lane_index() % 4;
  return emulation::exchange(row, [&](auto at) {
    unsigned r[4];
    for (int m = 0; m < 4; ++m) {
      unsigned pair = 0;
      for (int i = 0; i < 2; ++i) {
        const int from = kTransposed ? 2 * t + i : g, column = kTransposed ? g : 2 * t + i;
        const auto* p =
            static_cast<const std::uint16_t*>(at(static_cast<std::size_t>(m * 8 + from)));
        pair |= static_cast<unsigned>(p[column]) << (16 * i);
      }
      r[m] = pair;
    }
    return make_uint4(r[0], r[1], r[2], r[3]);
  });
#else
  return zero4();
#endif
}

// An 8x8 matrix of 16-bit elements, of which lane (g, t) has (g, 2t), (g, 2t + 1), transposed: it gets (2t, g), (2t + 1, g).
__device__ __forceinline__ unsigned transpose_matrix(unsigned pair) {
#if defined(__CUDA_ARCH__)
  unsigned transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
  return transposed;
#elif defined(INFINILM_CUDA_EMULATED)
  const int g = lane_index() / 4, t = lane_index() % 4;
  return emulation::exchange(pair, [&](auto at) {
    const auto element = [&](int row) {
      return at(static_cast<std::size_t>(row * 4 + g / 2)) >> (16 * (g % 2)) & 0xffffu;
    };
    return element(2 * t) | element(2 * t + 1) << 16;
  });
#else
  return pair;
#endif
}

// 2^x, to two units in the last place; 0 where it is less than 2^-126.
__device__ __forceinline__ float power_of_two(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}
inline constexpr float kBitsOfE = 1.44269504f;  // log2(e)
// e^x through 2^x: 2 ulp, and 0 for -inf.
__device__ __forceinline__ float power(float x) { return exp2f(x * kBitsOfE); }

// ---- within two units of the last place, without what other ways do for numbers near the ends of their range: 0 for y beyond 2^126
__device__ __forceinline__ float quotient(float x, float y) {
#if defined(__CUDA_ARCH__)
  return __fdividef(x, y);
#else
  return x / y;
#endif
}
__device__ __forceinline__ float inverse_root(float x) {
#if defined(__CUDA_ARCH__)
  return rsqrtf(x);
#else
  return 1.0f / sqrtf(x);
#endif
}

// ---- activations, as on the CPU
__device__ __forceinline__ float activate(float x, int act) {
  switch (act) {
    case 0:  // silu
      return quotient(x, 1.0f + expf(-x));
    case 1:  // gelu, by the complementary error function: no cancellation for negative x
      return 0.5f * fmaxf(x, -1e30f) * erfcf(-0.70710678f * x);
    case 2:  // x/2 (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
      return quotient(x, 1.0f + expf(-1.5957691216f * (x + 0.044715f * x * x * x)));
    default:  // relu; NaN stays NaN
      return x < 0.0f ? 0.0f : x;
  }
}

}  // namespace infinilm::cuda
