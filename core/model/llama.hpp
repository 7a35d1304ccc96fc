// The Llama model: embedding, decoder layers, final norm, head.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "infinilm/config.hpp"
#include "model/arena.hpp"
#include "model/decoder_layer.hpp"
#include "model/kv_cache.hpp"
#include "model/recorded_decode.hpp"
#include "model/rotary.hpp"
#include "model/weights.hpp"

namespace infinilm {

// Immutable once made; any number of threads may run it, each with a cache of its own.
class Llama {
 public:
  Llama(LlamaConfig config, std::shared_ptr<Ops> ops, LlamaWeights weights);
  ~Llama();
  Llama(const Llama&) = delete;
  Llama& operator=(const Llama&) = delete;

  const LlamaConfig& config() const noexcept { return config_; }
  const LlamaWeights& weights() const noexcept { return weights_; }
  Ops& ops() const noexcept { return *ops_; }
  Arena& arena() const noexcept { return arena_; }

  std::shared_ptr<KvCacheState> new_cache(std::size_t batch_size, DataType dtype) const;
  // The owner() of its caches, which may outlive it.
  const void* identity() const noexcept { return identity_.get(); }

  // Gives memory back that no step holds: for when the device has too little left.
  void give_back() const;

  // Runs the rows of `step.batch` and returns the logits of `logit_rows` (indices into T, ascending), [rows, V]
  // on hooks and in the result shaped as `leading` + [V].
  Tensor forward(Step& step, std::span<const std::int64_t> logit_rows, const Shape& leading) const;
  // The same of one row for each sequence whose ids are not known yet, with logits of each. Empty, and nothing was run, unless the device
  // has recorded such a step and nobody has to see anything before it has ended.
  std::optional<Tensor> forward_ahead(Step& step) const;

 private:
  // Logits of those rows, [rows, V], before anybody has seen them.
  Activation run(Step& step, const RopeTables& rope,
                 std::span<const std::int64_t> logit_rows) const;
  Activation embed(Step& step) const;
  Activation pick(Step& step, Activation& h, std::span<const std::int64_t> rows) const;
  Activation head(Step& step, Activation& h, std::span<const std::int64_t> logit_rows) const;

  std::shared_ptr<const char> identity_ = std::make_shared<const char>();
  LlamaConfig config_;
  std::shared_ptr<Ops> ops_;
  mutable Arena arena_;
  LlamaWeights weights_;
  RotaryEmbedding rotary_;
  std::vector<DecoderLayer> layers_;
  mutable RecordedDecode decode_;
};

}  // namespace infinilm
