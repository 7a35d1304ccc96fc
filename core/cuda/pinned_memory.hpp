// Page-locked memory of the host, into which a device copies by itself. The system takes long to lock it: it is cut into blocks,
// and those are lent again.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/context.hpp"

namespace infinilm::cuda {

// 64-byte aligned, with a spare cache line behind it as Buffer::host has.
struct PinnedBlock {
  PinnedBlock() = default;
  // Waits for the last copy into the block.
  ~PinnedBlock();
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;

  std::shared_ptr<void> slab;  // locked as a whole, unlocked when its last block is gone
  std::byte* memory = nullptr;
  std::size_t size = 0;
  cudaEvent_t arrived = nullptr;  // the last copy into it
};

// Thread-safe. Whoever takes a block may find that the copy before is still on its way into it: all copies into blocks of one
// pool must be on one stream, where they follow each other.
class PinnedPool {
 public:
  explicit PinnedPool(int device) : device_(device) {}
  ~PinnedPool() { give_back(); }
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // Null if the system or the driver has no more. The calling thread's device is the pool's.
  std::unique_ptr<PinnedBlock> take(std::size_t nbytes);
  void give(std::unique_ptr<PinnedBlock> block) noexcept;
  // Unlocks what nobody holds.
  void give_back() noexcept;

 private:
  using Blocks = std::vector<std::unique_ptr<PinnedBlock>>;
  std::unique_ptr<PinnedBlock> take_idle(std::size_t size);

  int device_;
  std::mutex mutex_;
  std::map<std::size_t, Blocks> idle_;  // by size
  std::size_t idle_bytes_ = 0;
};

}  // namespace infinilm::cuda
