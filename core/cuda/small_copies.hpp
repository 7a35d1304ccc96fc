// A few bytes between page-locked memory of the host and the device, by a kernel: the device's copy engines take longer to begin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/context.hpp"

namespace infinilm::cuda {

inline constexpr std::size_t kSmallCopy = 4096;   // bytes, at most
inline constexpr std::size_t kMostTransfers = 3;  // of a copy

// Whether these are few bytes, and whole words of the device's memory.
inline bool is_small_copy(const void* on_device, std::size_t nbytes) {
  return nbytes <= kSmallCopy && nbytes % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(on_device) % 4 == 0;
}
// Of such, kMostTransfers at most; the host's memory is page-locked.
void copy_small(Context& context, std::span<const Transfer> transfers);

}  // namespace infinilm::cuda
