#define INFINILM_ISA neon
#include "cpu/simd_neon.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_neon() noexcept {
  static const Kernels table = neon::make_table("neon");
  return table;
}

}  // namespace infinilm::cpu
