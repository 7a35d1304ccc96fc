// What tensors need of a device beside the CPU: memory, copies, and order with other users of the same device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "infinilm/error.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

// "5.10 GiB", "640 KiB", "12 bytes".
std::string bytes_text(std::size_t count);

// Rounded up to one of four sizes per power of two, so that near sizes share their memory.
std::size_t size_class(std::size_t nbytes) noexcept;

// Of a device's memory, in bytes.
struct Room {
  std::size_t free = 0;
  std::size_t total = 0;
};

// Says how much was asked for and how much is free.
OutOfMemory out_of_memory(const Device& device, std::size_t asked, const Room& room);

// Copies and operations of one device happen in the order in which they are asked for, on the device's stream; none of
// these returns early with an error of its own that it keeps to itself.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual Device device() const = 0;
  // Not initialised. OutOfMemory if there is not enough.
  virtual std::shared_ptr<Buffer> allocate(std::size_t nbytes) = 0;
  // The most that allocate() can still give, in pieces. None where that is not known, as on the CPU, whose system may find more.
  virtual std::optional<Room> room() { return std::nullopt; }

  // Host to device; `host` may change on return.
  virtual void upload(const void* host, void* to, std::size_t nbytes) = 0;
  // Device to host; done on return.
  virtual void download(const void* from, void* host, std::size_t nbytes) = 0;
  // Device to host without waiting: the bytes as they are now, whatever is written to `from` later, on their way into memory
  // that is pending until they are there. Where a device cannot, they are there on return.
  virtual std::shared_ptr<Buffer> download_later(const void* from, std::size_t nbytes);
  // Within the device.
  virtual void copy_bytes(const void* from, void* to, std::size_t nbytes) = 0;
  // Returns when everything that was asked for is done (at once on the CPU).
  virtual void synchronize() = 0;

  // Everything that was asked for lies on the stream, in order: whoever gets memory after this may read it there.
  virtual void submit() {}
  // The stream, after submit(); null where there is none.
  virtual void* stream() { return nullptr; }
  // Order with somebody else's stream, which DLPack names by a number: 1 the default stream, 2 that of the thread, others
  // a stream's address. What is put there from now on waits for what was asked for here; and until the memory is taken back, what is
  // asked for of it here, copies to and from it, comes in order with what is put there.
  virtual void lend(const Buffer& memory, std::uintptr_t stream) {
    static_cast<void>(memory), static_cast<void>(stream);
  }
  // What is asked for here from now on waits for what was put on `stream`, which may be gone by now.
  virtual void take_back(const Buffer& memory, std::uintptr_t stream) {
    static_cast<void>(memory), static_cast<void>(stream);
  }
  // What is asked for here from now on waits for what was put on every stream to which memory was lent since the last call.
  virtual void catch_up() {}
};

// The memory of a device; opens the device on first use. Error that says what is missing where there is no such device.
// Declared here, where tensors need it, and defined in core/ops, where the devices are known.
std::shared_ptr<DeviceMemory> device_memory(const Device& device);

}  // namespace infinilm
