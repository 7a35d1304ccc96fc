// Keys and values between the steps: blocks of kKvBlock tokens for every sequence, all layers together.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "infinilm/config.hpp"
#include "model/arena.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// How a block keeps keys and values: layer after layer.
struct KvLayout {
  DataType dtype = DataType::F32;
  std::size_t layer_bytes = 0;
  std::size_t layers = 0;

  std::size_t block_bytes() const noexcept { return layers * layer_bytes; }
};

// Blocks that so many tokens of a sequence lie in.
std::size_t block_count(std::size_t tokens) noexcept;

class KvCacheState {
 public:
  // `owner`: whoever may write here; compared, never followed, and held so that no other gets its address.
  KvCacheState(std::shared_ptr<const void> owner, Arena arena, KvLayout layout,
               std::size_t batch_size);

  const void* owner() const noexcept { return owner_.get(); }
  const KvLayout& layout() const noexcept { return layout_; }
  std::size_t batch_size() const noexcept { return slots_.size(); }
  std::size_t length(std::size_t slot) const;
  TokenIds tokens(std::size_t slot) const;
  void truncate(std::size_t length, std::size_t slot);
  std::size_t nbytes() const;

  // Held by the one forward pass that uses the cache; Error if another does. What was reserved and not committed is let go at the
  // end.
  class Use {
   public:
    explicit Use(KvCacheState& cache);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    KvCacheState& cache_;
  };

  // How often it has been used so far.
  std::uint64_t uses() const noexcept { return uses_; }

  // For the pass that holds a Use: room for `count` more tokens, without changing what is held.
  std::span<std::byte* const> reserve(std::size_t slot, std::size_t count);
  // The block with the last of that room, and, for the one token of a pass that ends in another Use, its way back.
  std::shared_ptr<Buffer> last_block(std::size_t slot) const;
  void put_back(std::size_t slot, std::shared_ptr<Buffer> block);
  // The pass has succeeded: `ids` belong to the sequence from now on.
  void commit(std::size_t slot, std::span<const std::int64_t> ids);

 private:
  struct Slot {
    TokenIds tokens;
    std::vector<std::shared_ptr<Buffer>> blocks;
    std::vector<std::byte*> pointers;  // to the blocks' memory
  };
  const Slot& at(std::size_t slot) const;
  static void append(Slot& slot, std::shared_ptr<Buffer> block);
  // Lets go of blocks that hold no tokens.
  void trim(Slot& slot) noexcept;

  std::shared_ptr<const void> owner_;
  Arena arena_;
  const KvLayout layout_;
  mutable std::mutex mutex_;  // guards slots_ against readers on other threads
  std::vector<Slot> slots_;
  std::atomic<bool> used_{false};
  std::atomic<std::uint64_t> uses_{0};
};

}  // namespace infinilm
