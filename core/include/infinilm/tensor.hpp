// A tensor: a strided view of a reference-counted buffer. Values of NumPy's and DLPack's world.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "infinilm/device.hpp"
#include "infinilm/dtype.hpp"

namespace infinilm {

using Shape = std::vector<std::int64_t>;

/// Memory and what keeps it alive. Counted by `live_buffers()`.
class Buffer {
 public:
  /// Whose memory it is: the engine's, a file's pages, which the system reads again where they were let go, or somebody else's,
  /// who may write to it at any time.
  enum class Origin { Engine, File, Foreign };

  /// `owner` is dropped when the buffer is; it frees the memory (or returns it to an arena).
  Buffer(void* data, std::size_t nbytes, Device device, std::shared_ptr<void> owner,
         Origin origin = Origin::Engine);
  /// Host memory whose bytes are still on their way: `arrival` returns when they are there, and throws Error if they never
  /// will be.
  Buffer(void* data, std::size_t nbytes, std::shared_ptr<void> owner,
         std::function<void()> arrival);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t nbytes() const noexcept { return nbytes_; }
  Device device() const noexcept { return device_; }
  Origin origin() const noexcept { return origin_; }
  /// Whether nobody has waited yet for bytes on their way; `data()` is where they will be.
  bool is_pending() const noexcept { return pending_.load(std::memory_order_acquire); }
  /// Returns when the bytes are there. Thread-safe. Throws what `arrival` throws, and again whenever it is called after that.
  void wait();

  /// 64-byte aligned host memory, not initialised. Throws std::bad_alloc.
  static std::shared_ptr<Buffer> host(std::size_t nbytes);

 private:
  std::byte* data_;
  std::size_t nbytes_;
  Device device_;
  Origin origin_;
  std::shared_ptr<void> owner_;
  std::atomic<bool> pending_ = false;
  std::mutex arriving_;
  std::function<void()> arrival_;
};

/// How many buffers are alive in the process: for leak tests.
std::int64_t live_buffers() noexcept;

/// A value type: copies share the memory. A default-made tensor has shape [0] and no memory.
class Tensor {
 public:
  Tensor() = default;

  /// A view of `buffer`, starting `offset` bytes in; `strides` in elements, row-major if empty.
  /// Throws ValueError if the view leaves the buffer, a dimension is negative or the size overflows.
  Tensor(std::shared_ptr<Buffer> buffer, DataType dtype, Shape shape, Shape strides = {},
         std::size_t offset = 0, bool read_only = false);

  /// New host memory, not initialised.
  static Tensor empty(Shape shape, DataType dtype = DataType::F32);

  /// Memory of someone else, kept alive by `owner`; negative strides are allowed (the caller vouches for them).
  static Tensor borrow(void* data, DataType dtype, Shape shape, Shape strides, Device device,
                       std::shared_ptr<void> owner, bool read_only);

  const Shape& shape() const noexcept { return shape_; }
  const Shape& strides() const noexcept { return strides_; }  // in elements
  DataType dtype() const noexcept { return dtype_; }
  Device device() const noexcept;
  std::int64_t ndim() const noexcept { return static_cast<std::int64_t>(shape_.size()); }
  std::int64_t numel() const noexcept;
  std::size_t itemsize() const { return size_of(dtype_); }
  std::size_t nbytes() const;
  bool read_only() const noexcept { return read_only_; }
  bool is_contiguous() const noexcept;
  const std::shared_ptr<Buffer>& buffer() const noexcept { return buffer_; }

  /// The first element; null for an empty tensor. The one way to the memory: waits for bytes that are still on their way, and
  /// throws RuntimeError (Error) if they never arrive.
  std::byte* data() const {
    if (buffer_ && buffer_->is_pending()) buffer_->wait();
    return data_;
  }

  /// The same memory under another shape of as many elements. Throws ValueError, also if not contiguous.
  Tensor reshape(Shape shape) const;
  /// This tensor if contiguous, else a contiguous copy.
  Tensor contiguous() const;
  Tensor clone() const;
  /// This tensor if it is there already, else a copy. Throws RuntimeError (Error) where there is no such device. With
  /// `non_blocking` a copy to the CPU returns at once: it has the values of now, whatever becomes of this tensor, and whoever
  /// first looks at them waits until they have arrived. Other copies are as without it.
  Tensor to(const Device& device, bool non_blocking = false) const;
  /// Writes the values of `source`, of the same shape and dtype, wherever it is, into this memory. ValueError, also if this
  /// is read-only or not contiguous.
  void copy_from(const Tensor& source) const;

  std::string str() const;  ///< Tensor(shape=(2, 3), dtype=float32, device=cpu)

 private:
  Tensor clone_on_device() const;
  Tensor download(bool later) const;

  std::shared_ptr<Buffer> buffer_;
  std::byte* data_ = nullptr;
  DataType dtype_ = DataType::F32;
  Shape shape_ = {0};
  Shape strides_ = {1};
  bool read_only_ = false;
};

/// Number of elements of `shape`. Throws ValueError for a negative dimension, OverflowError past int64.
std::int64_t numel_of(const Shape& shape);

/// "(2, 3)", "(4,)", "()": as Python writes a tuple.
std::string str_of(const Shape& shape);

}  // namespace infinilm
