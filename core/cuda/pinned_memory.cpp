#include "cuda/pinned_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

namespace infinilm::cuda {
namespace {

constexpr std::size_t kSpare = 64;
// Small blocks are cut from so much, or so many from less.
constexpr std::size_t kSlabBytes = std::size_t{1} << 21;
constexpr std::size_t kMostBlocks = 64;
// What has been let go of before the device is waited for.
constexpr std::size_t kRecycled = std::size_t{1} << 28;

// Of the machine, or of the container.
std::size_t host_bytes() {
  const std::size_t all = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                          static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::size_t allowed = 0;  // the file may say "max"
  std::ifstream file("/sys/fs/cgroup/memory.max");
  return file >> allowed ? std::min(all, allowed) : all;
}

// False if something on the device cannot be waited for, such as a graph that somebody records.
bool wait_for_device() {
  if (cudaDeviceSynchronize() == cudaSuccess) return true;
  cudaGetLastError();
  return false;
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
  if (block) idle_bytes -= size;
  return block;
}

std::unique_ptr<PinnedBlock> PinnedPool::take(std::size_t nbytes) {
  const std::size_t size = size_class(nbytes);
  if (lent_bytes + size > most_lent_) return nullptr;
  std::unique_ptr<PinnedBlock> block = take_idle(size);
  if (!block && dropped_bytes_ >= kRecycled) {
    recycle();
    block = take_idle(size);
  }
  if (!block) {
    BlockList blocks = new_blocks(size);
    block = blocks.pop();
    put_idle(std::move(blocks));
  }
  if (block) lent_bytes += size;
  return block;
}

void PinnedPool::give(std::unique_ptr<PinnedBlock> block) noexcept {
  lent_bytes -= block->size;
  BlockList one;
  one.push(std::move(block));
  drop(std::move(one));
}

BlockList PinnedPool::take_dropped() noexcept {
  const std::lock_guard lock(mutex_);
  dropped_bytes_ = 0;
  return BlockList(std::move(dropped_));
}

// To wait for the device with the others.
void PinnedPool::drop(BlockList blocks) noexcept {
  const std::lock_guard lock(mutex_);
  while (auto block = blocks.pop()) {
    dropped_bytes_ += block->size;
    dropped_.push(std::move(block));
  }
}

// Waits for the device, and lets what had been let go of before lie idle.
void PinnedPool::recycle() {
  BlockList blocks = take_dropped();
  wait_for_device() ? put_idle(std::move(blocks)) : drop(std::move(blocks));
}

// As long as there is room for it: larger blocks make room first.
void PinnedPool::put_idle(BlockList blocks) {
  BlockList surplus;  // unlocked after the mutex
  const std::lock_guard lock(mutex_);
  while (auto block = blocks.pop()) {
    const std::size_t size = block->size;
    idle_[size].push(std::move(block));
    idle_bytes += size;
  }
  for (auto size = idle_.rbegin(); size != idle_.rend() && idle_bytes > most_idle_; ++size) {
    while (idle_bytes > most_idle_) {
      auto block = size->second.pop();
      if (!block) break;
      idle_bytes -= size->first;
      surplus.push(std::move(block));
    }
  }
}

void PinnedPool::tidy() {
  if (dropped_bytes_ > most_idle_) recycle();
}

void PinnedPool::give_back() noexcept {
  const OnDevice here(device_);
  BlockList dropped = take_dropped();
  if (!wait_for_device()) drop(std::move(dropped));
  BlockList idle;  // unlocked after the mutex
  const std::lock_guard lock(mutex_);
  for (auto& [size, blocks] : idle_) {
    while (auto block = blocks.pop()) {
      idle_bytes -= size;
      idle.push(std::move(block));
    }
  }
}

}  // namespace infinilm::cuda
