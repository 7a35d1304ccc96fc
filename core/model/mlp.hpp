// The gated MLP: down(act(gate(h)) * up(h)) (Shazeer 2020, GLU variants).
#pragma once

#include "infinilm/config.hpp"
#include "model/step.hpp"
#include "model/weights.hpp"

namespace infinilm {

class Mlp {
 public:
  Mlp(const LlamaConfig& config, const LayerWeights& weights, int layer);
  // h: [T, H], the normed input; x: [T, H], the residual stream, which it adds to.
  void forward(Step& step, Activation& h, Activation& x) const;

 private:
  Activation gated(Step& step, Activation& h) const;

  const LayerWeights& weights_;
  HiddenAct act_;
  int layer_;
};

}  // namespace infinilm
