// One layer of the decoder: attention and MLP, each behind a norm and beside the residual stream.
#pragma once

#include "infinilm/config.hpp"
#include "model/attention.hpp"
#include "model/mlp.hpp"

namespace infinilm {

class DecoderLayer {
 public:
  DecoderLayer(const LlamaConfig& config, const LayerWeights& weights, int layer);
  // x: [T, H], the residual stream, changed in place.
  void forward(Step& step, const RopeTables& rope, Activation& x) const;

 private:
  const LayerWeights& weights_;
  Attention attention_;
  Mlp mlp_;
  float eps_;
  int layer_;
};

}  // namespace infinilm
