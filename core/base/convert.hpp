// Exact widening of stored floats.
#pragma once

#include "infinilm/tensor.hpp"

namespace infinilm {

// A contiguous float32 copy of an F32, F16 or BF16 tensor on the CPU (exact). ValueError for another dtype.
Tensor to_f32(const Tensor& tensor);

}  // namespace infinilm
