// Large products by NVIDIA's cuBLASLt, which is opened when it is first needed.
#pragma once

#include <memory>
#include <string>

#include "cuda/matrix_product.hpp"

namespace infinilm::cuda {

// A folder to look for the library in, before the system's.
void look_for_libraries_in(const std::string& folder);

// For the calling thread's current device. Error that says where the library was looked for and how to get it.
std::unique_ptr<MatrixProduct> make_cublaslt();

}  // namespace infinilm::cuda
