// All weights of a model, packed for its device; filled from tensors under HF's names.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/quantization.hpp"
#include "model/linear.hpp"
#include "model/parameters.hpp"
#include "ops/ops.hpp"

namespace infinilm {

struct LayerWeights {
  VectorParameter input_norm;
  Linear qkv;
  VectorParameter q_norm, k_norm;  // of Qwen3
  Linear o;
  VectorParameter post_attention_norm;
  Linear gate_up;
  Linear down;
};

struct LlamaWeights {
  std::unique_ptr<Weight> embedding;
  std::vector<LayerWeights> layers;
  VectorParameter final_norm;
  std::unique_ptr<Weight> head;  // null if tied: the embedding is the head

  const Weight& lm_head() const noexcept { return head ? *head : *embedding; }
  std::size_t nbytes() const;
};

// Names of `state` that the model does not have, except those that HF ignores too (rotary buffers, a head that is tied).
std::vector<std::string> unexpected_names(const LlamaConfig& config, const StateDict& state);

// Checks every name, shape and dtype first (ValueError listing what is wrong, up to a few), and whether all of it can fit on the
// device (OutOfMemory that says what would); allocates then. Matrices are rounded as they are packed, if `quantization` says so.
// `source` names the file or the mapping in messages.
LlamaWeights load_weights(const LlamaConfig& config, const Quantization& quantization,
                          const StateDict& state, const std::string& source, Ops& ops,
                          const ProgressCallback& progress);

// Where a parameter is: a part of a weight, or a vector.
struct ParameterPlace {
  const Weight* weight = nullptr;
  std::size_t part = 0;
  const Tensor* stored = nullptr;
};

// Every parameter under its HF name, in HF's order; a tied head is none.
void for_each_parameter(
    const LlamaConfig& config, const LlamaWeights& weights,
    const std::function<void(const std::string& name, const ParameterPlace& place)>& visit);

// One parameter again, in HF's layout. KeyError that names the nearest if there is none of that name.
Tensor parameter_of(const LlamaConfig& config, const LlamaWeights& weights, Ops& ops,
                    const std::string& name);

}  // namespace infinilm
