// Memory of the host for weights, keys and activations.
#pragma once

#include <cstddef>
#include <memory>

#include "infinilm/tensor.hpp"

namespace infinilm::cpu {

// 64-byte aligned, not initialised. Large pieces are asked for in large pages, which spares the address translation
// where they are read from end to end. Throws std::bad_alloc.
std::shared_ptr<Buffer> host_memory(std::size_t nbytes);

}  // namespace infinilm::cpu
