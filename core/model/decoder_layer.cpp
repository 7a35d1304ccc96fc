#include "model/decoder_layer.hpp"

namespace infinilm {

DecoderLayer::DecoderLayer(const LlamaConfig& config, const LayerWeights& weights, int layer)
    : weights_(weights),
      attention_(config, weights, layer),
      mlp_(config, weights, layer),
      eps_(static_cast<float>(config.rms_norm_eps)),
      layer_(layer) {}

void DecoderLayer::forward(Step& step, const RopeTables& rope, Activation& x) const {
  const std::int64_t hidden = x.cols();
  Activation h = step.make(hidden);

  step.point(Point::LayerInput, layer_, x, {hidden});
  step.ops.rms_norm(x.view(), weights_.input_norm.data(), eps_, h.view());
  step.point(Point::InputLayernorm, layer_, h, {hidden});
  attention_.forward(step, rope, h, x);

  step.point(Point::BeforePostAttentionLayernorm, layer_, x, {hidden});
  step.ops.rms_norm(x.view(), weights_.post_attention_norm.data(), eps_, h.fresh());
  step.point(Point::PostAttentionLayernorm, layer_, h, {hidden});
  mlp_.forward(step, h, x);

  step.point(Point::LayerOutput, layer_, x, {hidden});
}

}  // namespace infinilm
