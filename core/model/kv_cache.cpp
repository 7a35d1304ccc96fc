#include "model/kv_cache.hpp"

#include <utility>

#include "infinilm/error.hpp"
#include "infinilm/model.hpp"

namespace infinilm {

std::size_t block_count(std::size_t tokens) noexcept { return (tokens + kKvBlock - 1) / kKvBlock; }

KvCacheState::KvCacheState(std::shared_ptr<const void> owner, Arena arena, KvLayout layout,
                           std::size_t batch_size)
    : owner_(std::move(owner)), arena_(std::move(arena)), layout_(layout), slots_(batch_size) {
  check(batch_size >= 1, "a KV cache needs a batch size of at least 1, found ", batch_size);
}

KvCacheState::Use::Use(KvCacheState& cache) : cache_(cache) {
  check<Error>(
      !cache.used_.exchange(true),
      "this KV cache is in use by a forward pass that has not ended; give the inner pass (or the "
      "other thread) a cache of its own: model.new_cache()");
  ++cache_.uses_;
}

KvCacheState::Use::~Use() {
  {
    const std::lock_guard lock(cache_.mutex_);
    for (Slot& slot : cache_.slots_) cache_.trim(slot);
  }
  cache_.used_.store(false);
}

void KvCacheState::trim(Slot& slot) noexcept {
  slot.blocks.resize(block_count(slot.tokens.size()));
  slot.pointers.resize(slot.blocks.size());
}

const KvCacheState::Slot& KvCacheState::at(std::size_t slot) const {
  check<IndexError>(slot < slots_.size(), "slot ", slot, " of a KV cache for ", slots_.size(),
                    " sequences");
  return slots_[slot];
}

std::size_t KvCacheState::length(std::size_t slot) const {
  const std::lock_guard lock(mutex_);
  return at(slot).tokens.size();
}

TokenIds KvCacheState::tokens(std::size_t slot) const {
  const std::lock_guard lock(mutex_);
  return at(slot).tokens;
}

void KvCacheState::truncate(std::size_t length, std::size_t slot) {
  const Use use(*this);
  const std::lock_guard lock(mutex_);
  const std::size_t held = at(slot).tokens.size();
  check(length <= held, "cannot truncate to ", length, " tokens: the KV cache holds ", held,
        " in slot ", slot);
  Slot& s = slots_[slot];
  s.tokens.resize(length);
  trim(s);
}

std::size_t KvCacheState::nbytes() const {
  const std::lock_guard lock(mutex_);
  std::size_t blocks = 0;
  for (const Slot& s : slots_) blocks += s.blocks.size();
  return blocks * layout_.block_bytes();
}

std::span<std::byte* const> KvCacheState::reserve(std::size_t slot, std::size_t count) {
  const std::lock_guard lock(mutex_);
  at(slot);
  Slot& s = slots_[slot];
  const std::size_t blocks = block_count(s.tokens.size() + count);
  while (s.blocks.size() < blocks) {
    append(s, arena_.get_exact(layout_.block_bytes()));
  }
  return s.pointers;
}

void KvCacheState::append(Slot& slot, std::shared_ptr<Buffer> block) {
  slot.pointers.reserve(slot.blocks.size() + 1);
  slot.blocks.push_back(std::move(block));
  slot.pointers.push_back(slot.blocks.back()->data());
}

std::shared_ptr<Buffer> KvCacheState::last_block(std::size_t slot) const {
  const std::lock_guard lock(mutex_);
  return at(slot).blocks.back();
}

void KvCacheState::put_back(std::size_t slot, std::shared_ptr<Buffer> block) {
  const std::lock_guard lock(mutex_);
  const Slot& s = at(slot);
  if (s.blocks.size() < block_count(s.tokens.size() + 1)) append(slots_[slot], std::move(block));
}

void KvCacheState::commit(std::size_t slot, std::span<const std::int64_t> ids) {
  const std::lock_guard lock(mutex_);
  TokenIds& tokens = slots_[slot].tokens;
  tokens.insert(tokens.end(), ids.begin(), ids.end());
}

DataType KvCache::dtype() const { return state_->layout().dtype; }
std::size_t KvCache::batch_size() const { return state_->batch_size(); }
std::size_t KvCache::length(std::size_t slot) const { return state_->length(slot); }
TokenIds KvCache::tokens(std::size_t slot) const { return state_->tokens(slot); }
void KvCache::truncate(std::size_t length, std::size_t slot) { state_->truncate(length, slot); }
std::size_t KvCache::nbytes() const { return state_->nbytes(); }

void KvCache::clear() {
  for (std::size_t slot = 0; slot < batch_size(); ++slot) state_->truncate(0, slot);
}

}  // namespace infinilm
