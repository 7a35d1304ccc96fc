#define INFINILM_ISA avx2
#include "cpu/simd_avx2.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_avx2() noexcept {
  static const Kernels table = avx2::make_table("avx2");
  return table;
}

}  // namespace infinilm::cpu
