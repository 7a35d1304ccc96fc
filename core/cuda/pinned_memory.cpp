#include "cuda/pinned_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace infinilm::cuda {
namespace {

constexpr std::size_t kSpare = 64;
// Small blocks are cut from so much.
constexpr std::size_t kSlabBytes = std::size_t{1} << 21;

// The most that lies idle: a sixteenth of what the host has.
std::size_t most_idle() {
  static const std::size_t bytes = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                                   static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 16;
  return bytes;
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
std::vector<std::unique_ptr<PinnedBlock>> new_blocks(std::size_t size) {
  std::vector<std::unique_ptr<PinnedBlock>> blocks;
  const std::size_t count = std::max<std::size_t>(kSlabBytes / size, 1);
  const std::shared_ptr<void> slab = lock_memory(count * size);
  for (std::size_t i = 0; slab && i < count; ++i) {
    auto block = std::make_unique<PinnedBlock>();
    if (cudaEventCreateWithFlags(&block->arrived, cudaEventDisableTiming) != cudaSuccess) {
      cudaGetLastError();
      break;
    }
    block->slab = slab;
    block->memory = static_cast<std::byte*>(slab.get()) + i * size;
    block->size = size;
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace

PinnedBlock::~PinnedBlock() {
  if (arrived == nullptr) return;
  cudaEventSynchronize(arrived);  // on a lost device nothing is on its way any more
  cudaEventDestroy(arrived);
}

std::unique_ptr<PinnedBlock> PinnedPool::take_idle(std::size_t size) {
  const std::lock_guard lock(mutex_);
  Blocks& blocks = idle_[size];
  if (blocks.empty()) return nullptr;
  std::unique_ptr<PinnedBlock> block = std::move(blocks.back());
  blocks.pop_back();
  idle_bytes_ -= size;
  return block;
}

std::unique_ptr<PinnedBlock> PinnedPool::take(std::size_t nbytes) {
  const std::size_t size = size_class(nbytes + kSpare);
  if (std::unique_ptr<PinnedBlock> block = take_idle(size)) return block;
  Blocks blocks = new_blocks(size);
  if (blocks.empty()) return nullptr;
  std::unique_ptr<PinnedBlock> block = std::move(blocks.back());
  blocks.pop_back();
  for (std::unique_ptr<PinnedBlock>& rest : blocks) give(std::move(rest));
  return block;
}

void PinnedPool::give(std::unique_ptr<PinnedBlock> block) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (idle_bytes_ + block->size <= most_idle()) {
      idle_bytes_ += block->size;
      idle_[block->size].push_back(std::move(block));
      return;
    }
  }
  const OnDevice here(device_);
  block.reset();
}

void PinnedPool::give_back() noexcept {
  std::map<std::size_t, Blocks> idle;
  {
    const std::lock_guard lock(mutex_);
    idle.swap(idle_);
    idle_bytes_ = 0;
  }
  const OnDevice here(device_);
  idle.clear();
}

}  // namespace infinilm::cuda
