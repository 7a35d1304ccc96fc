// A model as a HuggingFace directory that reads back to the same bits.
#pragma once

#include <string>

#include "infinilm/config.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/quantization.hpp"
#include "model/weights.hpp"

namespace infinilm {

// As LlamaForCausalLM::save_pretrained. Of the weights, one matrix at a time is unpacked.
void save_model(const LlamaConfig& config, const LlamaWeights& weights, Ops& ops,
                const std::string& directory, const ProgressCallback& progress);

// What the linear layers have in common: bits and group size; none if they are not all quantised, and alike.
Quantization common_quantization(const LlamaWeights& weights);

}  // namespace infinilm
