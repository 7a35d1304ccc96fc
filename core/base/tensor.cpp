#include "infinilm/tensor.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "base/device_memory.hpp"
#include "base/live_buffers.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

std::atomic<std::int64_t> own_count{0};
std::atomic<std::int64_t>* buffers = &own_count;

constexpr std::align_val_t kAlignment{64};

Shape row_major(const Shape& shape) {
  Shape strides(shape.size());
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= shape[i] > 0 ? shape[i] : 1;
  }
  return strides;
}

// Elements from the first to one past the last that a view touches, for non-negative strides.
std::int64_t extent(const Shape& shape, const Shape& strides) {
  std::int64_t end = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return 0;
    std::int64_t step = 0;
    const bool overflow = __builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
                          __builtin_add_overflow(end, step, &end);
    check<OverflowError>(!overflow, "a view of shape ", str_of(shape), " is too large");
  }
  return end;
}

// Bytes of that many elements, the last one rounded up.
std::size_t bytes_of(std::int64_t count, DataType dtype, const Shape& shape) {
  const auto bits = static_cast<std::int64_t>(bits_of(dtype));
  check<OverflowError>(count <= (std::numeric_limits<std::int64_t>::max() - 7) / bits,
                       "a tensor of shape ", str_of(shape), " is too large");
  return static_cast<std::size_t>(count * bits + 7) / 8;
}

void copy_rows(const Tensor& from, std::size_t dim, const std::byte* source, std::byte*& target) {
  const std::size_t item = from.itemsize();
  if (dim == from.shape().size()) {
    std::memcpy(target, source, item);
    target += item;
    return;
  }
  const auto step = from.strides()[dim] * static_cast<std::int64_t>(item);
  for (std::int64_t i = 0; i < from.shape()[dim]; ++i)
    copy_rows(from, dim + 1, source + i * step, target);
}

}  // namespace

Buffer::Buffer(void* data, std::size_t nbytes, Device device, std::shared_ptr<void> owner,
               Origin origin)
    : data_(static_cast<std::byte*>(data)),
      nbytes_(nbytes),
      device_(device),
      origin_(origin),
      owner_(std::move(owner)) {
  buffers->fetch_add(1, std::memory_order_relaxed);
}

Buffer::Buffer(void* data, std::size_t nbytes, std::shared_ptr<void> owner,
               std::function<void()> arrival)
    : Buffer(data, nbytes, Device(), std::move(owner)) {
  arrival_ = std::move(arrival);
  pending_ = true;
}

Buffer::~Buffer() { buffers->fetch_sub(1, std::memory_order_relaxed); }

void Buffer::wait() {
  const std::lock_guard lock(arriving_);
  if (!is_pending()) return;  // another thread was first
  arrival_();
  arrival_ = nullptr;
  pending_.store(false, std::memory_order_release);
}

std::shared_ptr<Buffer> Buffer::host(std::size_t nbytes) {
  // One spare cache line: vector kernels may load, never use, what lies behind the end.
  void* memory = ::operator new(nbytes + static_cast<std::size_t>(kAlignment), kAlignment);
  std::shared_ptr<void> owner(memory, [](void* p) { ::operator delete(p, kAlignment); });
  return std::make_shared<Buffer>(memory, nbytes, Device(), std::move(owner));
}

std::int64_t live_buffers() noexcept { return buffers->load(std::memory_order_relaxed); }
std::atomic<std::int64_t>& live_buffer_count() noexcept { return *buffers; }
void count_live_buffers_in(std::atomic<std::int64_t>* counter) noexcept { buffers = counter; }

Tensor::Tensor(std::shared_ptr<Buffer> buffer, DataType dtype, Shape shape, Shape strides,
               std::size_t offset, bool read_only)
    : buffer_(std::move(buffer)),
      dtype_(dtype),
      shape_(std::move(shape)),
      strides_(std::move(strides)),
      read_only_(read_only) {
  const std::int64_t count = numel_of(shape_);
  if (strides_.empty()) strides_ = row_major(shape_);
  check(strides_.size() == shape_.size(), "expected ", shape_.size(), " strides, found ",
        strides_.size());
  for (const std::int64_t s : strides_) check(s >= 0, "expected strides of 0 or more, found ", s);
  const std::size_t bytes = count == 0 ? 0 : bytes_of(extent(shape_, strides_), dtype_, shape_);
  check(offset <= buffer_->nbytes() && bytes <= buffer_->nbytes() - offset, "a view of ", bytes,
        " bytes at ", offset, " leaves its buffer of ", buffer_->nbytes(), " bytes");
  data_ = buffer_->data() + offset;
}

Tensor Tensor::empty(Shape shape, DataType dtype) {
  size_of(dtype);  // throws where an element is no whole bytes
  const std::size_t bytes = bytes_of(numel_of(shape), dtype, shape);
  return Tensor(Buffer::host(bytes), dtype, std::move(shape));
}

Tensor Tensor::borrow(void* data, DataType dtype, Shape shape, Shape strides, Device device,
                      std::shared_ptr<void> owner, bool read_only) {
  Tensor tensor;
  size_of(dtype);  // throws where an element is no whole bytes
  const std::size_t bytes = bytes_of(numel_of(shape), dtype, shape);
  tensor.buffer_ =
      std::make_shared<Buffer>(data, bytes, device, std::move(owner), Buffer::Origin::Foreign);
  tensor.data_ = static_cast<std::byte*>(data);
  tensor.dtype_ = dtype;
  tensor.strides_ = strides.empty() ? row_major(shape) : std::move(strides);
  tensor.shape_ = std::move(shape);
  tensor.read_only_ = read_only;
  check(tensor.strides_.size() == tensor.shape_.size(), "expected ", tensor.shape_.size(),
        " strides, found ", tensor.strides_.size());
  return tensor;
}

Device Tensor::device() const noexcept { return buffer_ ? buffer_->device() : Device(); }

std::int64_t Tensor::numel() const noexcept {
  std::int64_t count = 1;
  for (const std::int64_t n : shape_) count *= n;
  return count;
}

std::size_t Tensor::nbytes() const {
  return (static_cast<std::size_t>(numel()) * bits_of(dtype_) + 7) / 8;
}

bool Tensor::is_contiguous() const noexcept {
  std::int64_t step = 1;
  for (std::size_t i = shape_.size(); i-- > 0;) {
    if (shape_[i] == 0) return true;
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

Tensor Tensor::reshape(Shape shape) const {
  check(numel_of(shape) == numel(), "expected a shape of ", numel(), " elements, found ",
        str_of(shape));
  check(is_contiguous(), "only a contiguous tensor can be reshaped without a copy");
  Tensor view = *this;
  view.strides_ = row_major(shape);
  view.shape_ = std::move(shape);
  return view;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  if (numel() > 0 && device().type() == DeviceType::CUDA) return clone_on_device();
  if (numel() == 0) return empty(shape_, dtype_);
  Tensor copy(Buffer::host(nbytes()), dtype_, shape_);
  if (is_contiguous()) {
    std::memcpy(copy.data(), data(), nbytes());
  } else {
    std::byte* target = copy.data();
    copy_rows(*this, 0, data(), target);
  }
  return copy;
}

// What is not contiguous goes by way of the host.
Tensor Tensor::clone_on_device() const {
  if (!is_contiguous()) return to(Device()).to(device());
  const auto memory = device_memory(device());
  Tensor copy(memory->allocate(nbytes()), dtype_, shape_);
  memory->copy_bytes(data(), copy.data(), nbytes());
  return copy;
}

Tensor Tensor::to(const Device& device, bool non_blocking) const {
  if (device == this->device()) return *this;
  if (this->device().type() == DeviceType::CUDA) {
    const bool ends_here = device.type() == DeviceType::CPU;
    const Tensor copy = download(non_blocking && ends_here);
    return ends_here ? copy : copy.to(device);
  }
  const auto memory = device_memory(device);
  const Tensor source = contiguous();
  Tensor copy(memory->allocate(std::max<std::size_t>(nbytes(), 1)), dtype_, shape_);
  if (nbytes() > 0) memory->upload(source.data(), copy.data(), nbytes());
  return copy;
}

void Tensor::copy_from(const Tensor& source) const {
  check(source.shape() == shape_ && source.dtype() == dtype_, "expected a tensor of ",
        name_of(dtype_), " ", str_of(shape_), ", found one of ", name_of(source.dtype()), " ",
        str_of(source.shape()));
  check(!read_only_, "the tensor is read-only");
  check(is_contiguous(), "only a contiguous tensor can be written as a whole");
  if (numel() == 0) return;
  const Tensor values = source.contiguous();
  if (device().type() == DeviceType::CPU) {
    const Tensor host = values.to(Device());
    std::memmove(data(), host.data(), nbytes());
  } else if (values.device() == device()) {
    device_memory(device())->copy_bytes(values.data(), data(), nbytes());
  } else {
    device_memory(device())->upload(values.to(Device()).data(), data(), nbytes());
  }
}

// A contiguous copy on the CPU. What is not contiguous is waited for: the host puts it together.
Tensor Tensor::download(bool later) const {
  if (numel() == 0) return empty(shape_, dtype_);
  const auto memory = device_memory(device());
  if (is_contiguous()) {
    // Nobody else would know that the device has yet to read it.
    if (later && buffer_->origin() != Buffer::Origin::Foreign)
      return Tensor(memory->download_later(data(), nbytes()), dtype_, shape_);
    Tensor copy(Buffer::host(nbytes()), dtype_, shape_);
    memory->download(data(), copy.data(), nbytes());
    return copy;
  }
  for (const std::int64_t s : strides_)
    check(s >= 0, "expected strides of 0 or more on ", device().str(), ", found ", s);
  const auto span = static_cast<std::size_t>(extent(shape_, strides_)) * itemsize();
  const std::shared_ptr<Buffer> all = Buffer::host(span);
  memory->download(data(), all->data(), span);
  return Tensor(all, dtype_, shape_, strides_).clone();
}

std::string Tensor::str() const {
  return concat("Tensor(shape=", str_of(shape_), ", dtype=", name_of(dtype_),
                ", device=", device().str(), ")");
}

std::int64_t numel_of(const Shape& shape) {
  std::int64_t count = 1;
  bool zero = false;
  for (const std::int64_t n : shape) {
    check(n >= 0, "expected dimensions of 0 or more, found shape ", str_of(shape));
    zero = zero || n == 0;
    check<OverflowError>(zero || !__builtin_mul_overflow(count, n, &count), "a tensor of shape ",
                         str_of(shape), " is too large");
  }
  return zero ? 0 : count;
}

std::string str_of(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text.append(i ? ", " : "").append(std::to_string(shape[i]));
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace infinilm
