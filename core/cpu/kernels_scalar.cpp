#define INFINILM_ISA scalar
#include "cpu/simd_scalar.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_scalar() noexcept {
  static const Kernels table = scalar::make_table("scalar");
  return table;
}

}  // namespace infinilm::cpu
