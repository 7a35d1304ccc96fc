// The hook points, in the order of execution: the one place that knows their names.
#pragma once

#include <cstddef>
#include <string>

#include "infinilm/hooks.hpp"

namespace infinilm {

enum class Point : int {
  EmbedTokens,
  LayerInput,  // first of a layer
  InputLayernorm,
  QAfterProj,
  KAfterProj,
  VAfterProj,
  QAfterReshape,
  KAfterReshape,
  VAfterReshape,
  QBeforeRope,
  KBeforeRope,
  QAfterRope,
  KAfterRope,
  AttentionScores,
  AttentionWeights,
  AttnFlatBeforeOProj,
  AttentionOutput,
  BeforePostAttentionLayernorm,
  PostAttentionLayernorm,
  MlpGateProj,
  MlpUpProj,
  MlpIntermediate,
  Mlp,
  LayerOutput,  // last of a layer
  BeforeFinalNorm,
  FinalNorm,
  HiddenStatesBeforeLmHead,
  Logits,
};

inline constexpr int kPointCount = static_cast<int>(Point::Logits) + 1;
inline constexpr int kFirstLayerPoint = static_cast<int>(Point::LayerInput);
inline constexpr int kLayerPoints = static_cast<int>(Point::LayerOutput) - kFirstLayerPoint + 1;

// `pattern` with `{i}` replaced by the layer (as it is where there is none: layer < 0).
std::string point_name(const std::string& pattern, int layer);

// How many points a model of `num_layers` layers has, and the place of one among them in order of execution.
std::size_t point_count(std::size_t num_layers) noexcept;
std::size_t point_index(Point point, int layer, std::size_t num_layers) noexcept;

// Calls `visit(point, layer)` for every point of a model, in order of execution.
template <class Visit>
void for_each_point(std::size_t num_layers, Visit&& visit) {
  const int layers = static_cast<int>(num_layers);
  for (int p = 0; p < kFirstLayerPoint; ++p) visit(static_cast<Point>(p), -1);
  for (int i = 0; i < layers; ++i) {
    for (int p = 0; p < kLayerPoints; ++p) visit(static_cast<Point>(kFirstLayerPoint + p), i);
  }
  for (int p = kFirstLayerPoint + kLayerPoints; p < kPointCount; ++p)
    visit(static_cast<Point>(p), -1);
}

}  // namespace infinilm
