// How the weights of a model are kept on a device: known before any of them is read.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/quantization.hpp"
#include "model/imported.hpp"
#include "model/parameters.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// The linear layers of a decoder layer; those that share their input are one weight.
inline constexpr std::array kQkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
inline constexpr std::array kO = {"self_attn.o_proj"};
inline constexpr std::array kGateUp = {"mlp.gate_proj", "mlp.up_proj"};
inline constexpr std::array kDown = {"mlp.down_proj"};

// Matrices that become one weight.
struct Stack {
  std::vector<ParameterInfo> matrices;
  bool is_vocabulary = false;  // the embedding or the head

  std::int64_t inputs() const { return matrices.front().shape[1]; }
};

class WeightPlan {
 public:
  // `compute`: the compute type, which may be another than the config's. `state` has passed the review, and outlives the plan.
  WeightPlan(const LlamaConfig& config, DataType compute, const Quantization& quantization,
             const StateDict& state, const ImportedModules& imported);

  Stack embedding() const;
  Stack head() const;  // if it is not tied
  Stack linear(std::size_t layer, std::span<const char* const> names) const;

  // What a stack that is not quantised already is rounded to; none: it is kept as floats.
  QuantFormat rounding(const Stack& stack) const;
  // The type of a stack that is kept as floats.
  DataType kept_dtype(const Stack& stack) const;

  // Of all weights, as `ops` lays them out: what LlamaWeights::nbytes() will be, but for an order of inputs.
  std::size_t nbytes(const Ops& ops) const;

 private:
  std::size_t nbytes(const Stack& stack, const Ops& ops) const;
  std::size_t vector_bytes() const;

  const LlamaConfig& config_;
  DataType compute_;
  Quantization quantization_;
  const StateDict& state_;
  const ImportedModules& imported_;
  std::vector<ParameterInfo> of_layer_;
};

}  // namespace infinilm
