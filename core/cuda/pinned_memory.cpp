#include "cuda/pinned_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace infinilm::cuda {
namespace {

constexpr std::size_t kSpare = 64;
// Small blocks are cut from so much, or so many from less.
constexpr std::size_t kSlabBytes = std::size_t{1} << 21;
constexpr std::size_t kMostBlocks = 64;
// What has been let go of before the device is waited for.
constexpr std::size_t kRecycled = std::size_t{1} << 28;

std::size_t host_bytes() {
  return static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// Null for any error: one that stays is told by the copy that is made instead.
std::shared_ptr<void> lock_memory(std::size_t nbytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, nbytes) == cudaSuccess) {
    return {memory, [](void* p) { cudaFreeHost(p); }};
  }
  cudaGetLastError();
  return nullptr;
}

// Empty where there is no memory.
BlockList new_blocks(std::size_t size) {
  BlockList blocks;
  const std::size_t step = size + kSpare;
  const std::size_t count = std::clamp<std::size_t>(kSlabBytes / step, 1, kMostBlocks);
  const std::shared_ptr<void> slab = lock_memory(count * step);
  for (std::size_t i = 0; slab && i < count; ++i) {
    auto block = std::make_unique<PinnedBlock>();
    block->slab = slab;
    block->memory = static_cast<std::byte*>(slab.get()) + i * step;
    block->size = size;
    blocks.push(std::move(block));
  }
  return blocks;
}

}  // namespace

PinnedBlock::~PinnedBlock() {
  if (arrived != nullptr) cudaEventDestroy(arrived);
}

PinnedPool::PinnedPool(int device)
    : device_(device), most_idle_(host_bytes() / 16), most_lent_(host_bytes() / 2) {}

std::unique_ptr<PinnedBlock> PinnedPool::take_idle(std::size_t size) {
  const std::lock_guard lock(mutex_);
  const auto found = idle_.find(size);
  if (found == idle_.end()) return nullptr;
  std::unique_ptr<PinnedBlock> block = found->second.pop();
  if (!block) return nullptr;
  idle_bytes_ -= size;
  lent_bytes_ += size;
  return block;
}

std::unique_ptr<PinnedBlock> PinnedPool::take(std::size_t nbytes) {
  const std::size_t size = size_class(nbytes);
  {
    const std::lock_guard lock(mutex_);
    if (lent_bytes_ + size > most_lent_) return nullptr;
  }
  if (auto block = take_idle(size)) return block;
  if (dropped_bytes_ >= kRecycled) {
    recycle(size);
    if (auto block = take_idle(size)) return block;
  }
  put_idle(new_blocks(size), size);
  return take_idle(size);
}

void PinnedPool::give(std::unique_ptr<PinnedBlock> block) noexcept {
  const std::lock_guard lock(mutex_);
  lent_bytes_ -= block->size;
  dropped_bytes_ += block->size;
  dropped_.push(std::move(block));
}

BlockList PinnedPool::take_dropped() noexcept {
  const std::lock_guard lock(mutex_);
  dropped_bytes_ = 0;
  return BlockList(std::move(dropped_));
}

// Waits for the device, and lets what had been let go of before lie idle.
void PinnedPool::recycle(std::size_t wanted) {
  BlockList blocks = take_dropped();
  cudaDeviceSynchronize();  // an error of a lost device is told by the next call
  put_idle(std::move(blocks), wanted);
}

// Of other sizes than the wanted one only what there is room for.
void PinnedPool::put_idle(BlockList blocks, std::size_t wanted) {
  BlockList surplus;  // dropped after the unlock
  const std::lock_guard lock(mutex_);
  while (auto block = blocks.pop()) {
    const std::size_t size = block->size;
    idle_[size].push(std::move(block));
    idle_bytes_ += size;
  }
  for (auto size = idle_.rbegin(); size != idle_.rend() && idle_bytes_ > most_idle_; ++size) {
    while (size->first != wanted && idle_bytes_ > most_idle_) {
      auto block = size->second.pop();
      if (!block) break;
      idle_bytes_ -= size->first;
      surplus.push(std::move(block));
    }
  }
}

void PinnedPool::tidy() {
  if (dropped_bytes_ > most_idle_) recycle(0);
}

void PinnedPool::give_back() noexcept {
  const OnDevice here(device_);
  std::map<std::size_t, BlockList> idle;
  const BlockList dropped = take_dropped();
  {
    const std::lock_guard lock(mutex_);
    idle.swap(idle_);
    idle_bytes_ = 0;
  }
  cudaDeviceSynchronize();
}

}  // namespace infinilm::cuda
