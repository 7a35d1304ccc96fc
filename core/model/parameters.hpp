// The parameters of a model under their HF names, from its config alone: the one place that knows them.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/model.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

using StateDict = std::map<std::string, Tensor>;

inline constexpr const char* kEmbedTokens = "model.embed_tokens.weight";
inline constexpr const char* kFinalNorm = "model.norm.weight";
inline constexpr const char* kLmHead = "lm_head.weight";

// "model.layers.3." + name
std::string layer_parameter(std::size_t layer, const std::string& name);

// The parameters of one layer, without the prefix "model.layers.N.".
std::vector<ParameterInfo> layer_parameters(const LlamaConfig& config);
// The others, in HF's order: embedding first, then (after the layers) norm and head (absent if tied).
ParameterInfo embedding_parameter(const LlamaConfig& config);
std::vector<ParameterInfo> head_parameters(const LlamaConfig& config);

}  // namespace infinilm
