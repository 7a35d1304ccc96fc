// Grouped-query self-attention with rotary positions, as the Llama family has it.
#pragma once

#include <cstddef>
#include <vector>

#include "infinilm/config.hpp"
#include "model/residual.hpp"
#include "model/rotary.hpp"
#include "model/step.hpp"
#include "model/weights.hpp"

namespace infinilm {

// One layer's attention, from its norm's output to o_proj, added to the residual stream.
class Attention {
 public:
  Attention(const LlamaConfig& config, const LayerWeights& weights, int layer);

  // h: [T, H], the normed input; x: [T, H], the residual stream, which it adds to.
  void forward(Step& step, const RopeTables& rope, Activation& h, Activation& x) const;

 private:
  struct Heads {
    Activation q, k, v;
  };
  Heads project(Step& step, Activation& h) const;
  void normalize(Step& step, Heads& heads) const;
  void rotate(Step& step, const RopeTables& rope, Heads& heads) const;
  // This layer's attention over the cache of a step.
  AttentionShape shape_in(const KvLayout& kv) const;
  Activation attend(Step& step, Heads& heads) const;
  // The same from materialised scores and weights, for whoever wants to see them.
  void attend_unfused(Step& step, const Matrix& q, Matrix y) const;
  struct ScoreBlock;
  std::vector<ScoreBlock> score_blocks(const Step& step) const;

  const LlamaConfig& config_;
  const LayerWeights& weights_;
  int layer_;
  AttentionShape shape_;  // but for what the cache decides
};

}  // namespace infinilm
