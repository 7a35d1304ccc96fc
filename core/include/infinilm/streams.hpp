// Order between the engine and other users of a CUDA device. Streams are numbered as DLPack does: 1 is the default stream, 2
// that of the thread, any other number a stream's address. On the CPU there is nothing to order.
#pragma once

#include <cstdint>

#include "infinilm/device.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

/// The engine's stream on the device, with all that was asked for on it; 0 on the CPU. Throws Error where there is no such device.
std::uintptr_t stream_of(const Device& device);
/// What is put on `stream` from now on waits for what the engine was asked for; until the tensor is taken back, reading, copying and
/// overwriting it as a whole comes in order with what is put there. The tensor is one of a device.
void lend(const Tensor& tensor, std::uintptr_t stream);
/// The end of that: what the engine is asked for from now on waits for what was put on `stream`.
void take_back(const Tensor& tensor, std::uintptr_t stream) noexcept;
/// Returns when the engine has done everything that it was asked for.
void synchronize(const Device& device);

}  // namespace infinilm
