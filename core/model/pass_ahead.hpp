// A forward pass that the device was asked for before anybody knew its tokens: they are what another pass ends with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hooks/plan.hpp"
#include "infinilm/tensor.hpp"
#include "model/kv_cache.hpp"
#include "model/llama.hpp"

namespace infinilm {

// Made by LlamaForCausalLM::forward_ahead and ended by LlamaForCausalLM::complete. One that is dropped has left no trace: what it
// wrote lies behind the ends of the cache's sequences. It holds neither weights nor hooks: without them it is outdated.
struct PassAhead {
  std::weak_ptr<const Llama> llama;
  std::weak_ptr<HookConnection> hooks;
  std::uint64_t registrations = 0;  // the registry's generation
  std::shared_ptr<KvCacheState> cache;
  std::uint64_t uses = 0;  // of the cache, this one included
  std::vector<std::size_t> slots;
  std::vector<std::shared_ptr<Buffer>> blocks;  // where the token of each slot lies
  Tensor logits;                                // [slots, V]
  std::vector<HookRunner::Kept> kept;
};

}  // namespace infinilm
