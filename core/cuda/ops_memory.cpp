// The memory of OpsCuda: what tensors ask of a device, and order with who else holds its memory.
#include <algorithm>
#include <utility>

#include "cuda/ops_cuda.hpp"
#include "cuda/rows.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// Bytes; the driver is faster with more.
constexpr std::size_t kLargeCopy = std::size_t{1} << 20;

}  // namespace

std::shared_ptr<Buffer> OpsCuda::allocate(std::size_t nbytes) {
  const Context::Use use(*context_);
  void* memory = nullptr;
  try {
    memory = context_->allocate(nbytes);
  } catch (const Error&) {
    flush();  // whoever gives up lets go of what this reads
    throw;
  }
  // Freed in the stream's order: after everything that was asked for with it, but for what is put off.
  std::shared_ptr<void> owner(memory, [context = context_](void* p) { context->free(p); });
  return std::make_shared<Buffer>(memory, nbytes, device(), std::move(owner));
}

std::optional<Room> OpsCuda::room() {
  if (!context_->has_own_memory()) return std::nullopt;
  synchronize();  // memory is freed in the stream's order
  const Context::Use use(*context_);
  return context_->room();
}

std::byte* OpsCuda::scratch(Scratch& buffer, std::size_t nbytes) {
  try {
    return context_->scratch(buffer, nbytes);
  } catch (const Error&) {
    flush();  // as above
    throw;
  }
}

void OpsCuda::follow_consumers(const void* memory, std::size_t nbytes) {
  for (const std::uintptr_t stream : consumers_.streams_of(memory, nbytes)) {
    context_->catch_up(stream);
  }
}

// For streams that may be gone by now, the host waits instead.
void OpsCuda::let_consumers_follow(const void* memory, std::size_t nbytes) {
  for (const std::uintptr_t stream : consumers_.streams_of(memory, nbytes)) {
    stream == Context::kLegacy ? context_->let_wait(stream) : context_->synchronize();
  }
}

void OpsCuda::upload(const void* host, void* to, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  follow_consumers(to, nbytes);
  context_->upload(host, to, nbytes);
  let_consumers_follow(to, nbytes);
}

void OpsCuda::download(const void* from, void* host, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  follow_consumers(from, nbytes);
  context_->download(from, host, nbytes);
  downloads_->tidy();
}

std::shared_ptr<Buffer> OpsCuda::download_later(const void* from, std::size_t nbytes) {
  const Context::Use use(*context_);
  check<Error>(!context_->is_recording(), "CUDA: a copy to the host cannot be recorded");
  flush();
  follow_consumers(from, nbytes);
  const auto host = downloads_->start(nbytes, [&](void* to) { copy_within(from, to, nbytes); });
  if (!host) return Ops::download_later(from, nbytes);
  let_consumers_follow(from, nbytes);
  return host;
}

void OpsCuda::copy_bytes(const void* from, void* to, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  follow_consumers(from, nbytes);
  follow_consumers(to, nbytes);
  copy_within(from, to, nbytes);
  let_consumers_follow(from, nbytes);
  let_consumers_follow(to, nbytes);
}

void OpsCuda::copy_within(const void* from, void* to, std::size_t nbytes) {
  // Between kernels another one overlaps with its neighbours, the driver's copy does not.
  const auto place = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  if (nbytes > kLargeCopy || nbytes % 4 != 0 || (place(from) | place(to)) % 4 != 0) {
    return context_->copy_bytes(from, to, nbytes);
  }
  const auto count = static_cast<std::int64_t>(nbytes / 4);
  auto* source = static_cast<float*>(const_cast<void*>(from));
  cuda::copy(*context_, {source, 1, count, count}, {static_cast<float*>(to), 1, count, count});
}

void OpsCuda::synchronize() {
  const Context::Use use(*context_);
  flush();
  context_->synchronize();
  downloads_->synchronize();
  downloads_->tidy();
}

void OpsCuda::submit() {
  const Context::Use use(*context_);
  flush();
}

void* OpsCuda::stream() {
  submit();
  return context_->stream();
}

void OpsCuda::lend(const Buffer& memory, std::uintptr_t stream) {
  const Context::Use use(*context_);
  flush();
  context_->let_wait(stream);
  if (std::find(waiting_.begin(), waiting_.end(), stream) == waiting_.end()) {
    waiting_.push_back(stream);
  }
  consumers_.lend(memory.data(), memory.nbytes(), stream);
}

void OpsCuda::take_back(const Buffer& memory, std::uintptr_t stream) {
  try {
    const Context::Use use(*context_);
    consumers_.take_back(memory.data(), stream);
    context_->catch_up(stream);
  } catch (const Error&) {
    // Whoever drops memory can do nothing about a lost device; the next operation will say so.
  }
}

void OpsCuda::catch_up() {
  const Context::Use use(*context_);
  for (const std::uintptr_t stream : std::exchange(waiting_, {})) context_->catch_up(stream);
}

}  // namespace infinilm::cuda
