#define INFINILM_ISA avx512bf16
#define INFINILM_NATIVE_BF16
#include "cpu/simd_avx512.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_avx512bf16() noexcept {
  static const Kernels table = avx512bf16::make_table("avx512bf16");
  return table;
}

}  // namespace infinilm::cpu
