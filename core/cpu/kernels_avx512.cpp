#define INFINILM_ISA avx512
#include "cpu/simd_avx512.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_avx512() noexcept {
  static const Kernels table = avx512::make_table("avx512");
  return table;
}

}  // namespace infinilm::cpu
