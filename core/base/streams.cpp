#include "infinilm/streams.hpp"

#include <exception>

#include "base/device_memory.hpp"

namespace infinilm {

std::uintptr_t stream_of(const Device& device) {
  return reinterpret_cast<std::uintptr_t>(device_memory(device)->stream());
}

void lend(const Tensor& tensor, std::uintptr_t stream) {
  device_memory(tensor.device())->lend(*tensor.buffer(), stream);
}

void take_back(const Tensor& tensor, std::uintptr_t stream) noexcept {
  try {
    device_memory(tensor.device())->take_back(*tensor.buffer(), stream);
  } catch (const std::exception&) {
    // The device is lost: the next operation on it says so.
  }
}

void synchronize(const Device& device) { device_memory(device)->synchronize(); }

}  // namespace infinilm
