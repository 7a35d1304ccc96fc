// A few bytes between page-locked memory of the host and the device, by a kernel: the device's copy engines take longer to begin.
#pragma once

#include <cstddef>

#include "cuda/context.hpp"

namespace infinilm::cuda {

inline constexpr std::size_t kSmallCopy = 4096;  // bytes, at most

// Between multiples of 4 bytes; the host's memory is page-locked.
void copy_small(Context& context, const void* from, void* to, std::size_t nbytes);

}  // namespace infinilm::cuda
