#define INFINILM_ISA amx
#define INFINILM_NATIVE_BF16
#define INFINILM_AMX
#include "cpu/simd_avx512.hpp"

// simd_*.hpp comes first: kernels.inl is written in its terms.
#include "cpu/kernels.inl"

namespace infinilm::cpu {

const Kernels& kernels_amx() noexcept {
  static const Kernels table = amx::make_table("amx");
  return table;
}

}  // namespace infinilm::cpu
