// Products of large matrices by somebody else's library, where there is one.
#pragma once

#include <cstdint>

#include "infinilm/dtype.hpp"

namespace infinilm::cuda {

// Where a product goes.
struct Results {
  void* data;
  std::int64_t stride;  // elements
  DataType type;
};

// The same product several times, with the same a: b and c are so many elements further on each time, not back.
struct Repeated {
  int times = 1;
  std::int64_t b_step = 0, c_step = 0;
};

class MatrixProduct {
 public:
  virtual ~MatrixProduct() = default;
  // c [m, n] = a [m, k] b [n, k]^T + beta c on the stream, all row-major, strides in elements. a and b are of `type` (BF16, F16, or
  // F32 multiplied as such), sums float32, and c is float32 or rounded to `type`. False, with nothing done, if it cannot (alignment, for
  // instance).
  virtual bool multiply(void* stream, DataType type, std::int64_t m, std::int64_t n, std::int64_t k,
                        const void* a, std::int64_t a_stride, const void* b, std::int64_t b_stride,
                        float beta, const Results& c, const Repeated& repeated) = 0;
};

}  // namespace infinilm::cuda
