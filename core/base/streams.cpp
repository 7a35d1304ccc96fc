#include "infinilm/streams.hpp"

#include <exception>

#include "base/device_memory.hpp"

namespace infinilm {

std::uintptr_t stream_of(const Device& device) {
  return reinterpret_cast<std::uintptr_t>(device_memory(device)->stream());
}

void let_wait(const Device& device, std::uintptr_t stream) {
  device_memory(device)->let_wait(stream);
}

void catch_up(const Device& device, std::uintptr_t stream) noexcept {
  try {
    device_memory(device)->catch_up(stream);
  } catch (const std::exception&) {
    // The device is lost: the next operation on it says so.
  }
}

void synchronize(const Device& device) { device_memory(device)->synchronize(); }

}  // namespace infinilm
