// Page-locked memory of the host, into which a device copies by itself. The system takes long to lock it: it is cut into blocks,
// and those are lent again.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda/context.hpp"

namespace infinilm::cuda {

// 64-byte aligned, with a spare cache line behind it as Buffer::host has.
struct PinnedBlock {
  PinnedBlock() = default;
  ~PinnedBlock();
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;

  std::shared_ptr<void> slab;  // locked as a whole, unlocked when its last block is gone
  std::byte* memory = nullptr;
  std::size_t size = 0;
  cudaEvent_t arrived = nullptr;      // for whoever copies into it; made with the first copy
  std::unique_ptr<PinnedBlock> next;  // of a list
};

// Needs no memory of its own, so that who lets go of a block cannot fail.
class BlockList {
 public:
  BlockList() = default;
  ~BlockList() {
    while (pop()) continue;  // one by one: their destructors would call each other
  }
  BlockList(BlockList&& other) noexcept : first_(std::move(other.first_)) {}
  BlockList& operator=(BlockList&&) = delete;
  void push(std::unique_ptr<PinnedBlock> block) noexcept {
    block->next = std::move(first_);
    first_ = std::move(block);
  }
  // Null if there is none.
  std::unique_ptr<PinnedBlock> pop() noexcept {
    if (!first_) return nullptr;
    std::unique_ptr<PinnedBlock> block = std::move(first_);
    first_ = std::move(block->next);
    return block;
  }

 private:
  std::unique_ptr<PinnedBlock> first_;
};

// Thread-safe. Whoever was lent a block may have asked the device to read it, as copies from page-locked memory do not wait, and
// let go of it: it is lent again, or unlocked, only after the device has been waited for. That is done for many at once, by calls
// under Context::Use, and never by those who let go.
class PinnedPool {
 public:
  explicit PinnedPool(int device);
  ~PinnedPool() { give_back(); }
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // Null if the system or the driver has no more, or half of the host's memory is lent by all pools. Under Context::Use.
  std::unique_ptr<PinnedBlock> take(std::size_t nbytes);
  void give(std::unique_ptr<PinnedBlock> block) noexcept;
  // Unlocks what is too much to lie idle: a sixteenth of the host's memory, of all pools. Under Context::Use.
  void tidy();
  // Unlocks what nobody holds. Under Context::Use.
  void give_back() noexcept;

 private:
  std::unique_ptr<PinnedBlock> take_idle(std::size_t size);
  void recycle();
  BlockList take_dropped() noexcept;
  void drop(BlockList blocks) noexcept;
  void put_idle(BlockList blocks);

  // Bytes of all pools.
  static inline std::atomic<std::size_t> idle_bytes = 0, lent_bytes = 0;

  int device_;
  std::size_t most_idle_, most_lent_;      // bytes
  std::mutex mutex_;                       // guards what follows
  std::map<std::size_t, BlockList> idle_;  // by size
  BlockList dropped_;
  std::atomic<std::size_t> dropped_bytes_ = 0;
};

}  // namespace infinilm::cuda
