#include "model/weight_plan.hpp"

#include <algorithm>

#include "infinilm/error.hpp"

namespace infinilm {

WeightPlan::WeightPlan(const LlamaConfig& config, DataType compute,
                       const Quantization& quantization, const StateDict& state,
                       const ImportedModules& imported)
    : config_(config),
      compute_(compute),
      quantization_(quantization),
      state_(state),
      imported_(imported),
      of_layer_(layer_parameters(config)) {}

Stack WeightPlan::embedding() const { return {{embedding_parameter(config_)}, true}; }

Stack WeightPlan::head() const { return {{head_parameters(config_).back()}, true}; }

Stack WeightPlan::linear(std::size_t layer, std::span<const char* const> names) const {
  Stack stack;
  for (const char* name : names) {
    const std::string weight = concat(name, ".weight");
    const auto named = [&](const ParameterInfo& p) { return p.name == weight; };
    const auto found = std::find_if(of_layer_.begin(), of_layer_.end(), named);
    stack.matrices.push_back({layer_parameter(layer, weight), found->shape});
  }
  return stack;
}

QuantFormat WeightPlan::rounding(const Stack& stack) const {
  if (!quantization_) return {};
  return stack.is_vocabulary ? by_rows(8, stack.inputs())
                             : format_of(quantization_, stack.inputs());
}

DataType WeightPlan::kept_dtype(const Stack& stack) const {
  if (compute_ != DataType::F32) return compute_;
  // What is kept as it is stored must be of one type.
  const DataType first = state_.at(stack.matrices.front().name).dtype();
  const bool are_alike = std::ranges::all_of(stack.matrices, [&](const ParameterInfo& matrix) {
    return state_.at(matrix.name).dtype() == first;
  });
  return are_alike ? first : DataType::F32;
}

std::size_t WeightPlan::nbytes(const Stack& stack, const Ops& ops) const {
  std::vector<std::int64_t> outputs;
  for (const ParameterInfo& matrix : stack.matrices) outputs.push_back(matrix.shape[0]);
  const bool is_imported = imported_.holds(stack.matrices);
  const QuantFormat format = is_imported ? imported_.format(stack.matrices) : rounding(stack);
  const DataType kept = format ? DataType::F32 : kept_dtype(stack);
  return ops.packed_bytes(outputs, stack.inputs(), kept, format);
}

// Vectors are float32 on the device.
std::size_t WeightPlan::vector_bytes() const {
  std::int64_t of_layer = 0;
  for (const ParameterInfo& p : of_layer_) of_layer += p.shape.size() == 1 ? p.shape[0] : 0;
  const std::size_t count =
      config_.num_hidden_layers * static_cast<std::size_t>(of_layer) + config_.hidden_size;
  return count * sizeof(float);
}

std::size_t WeightPlan::nbytes(const Ops& ops) const {
  std::size_t total = nbytes(embedding(), ops) + vector_bytes();
  if (!config_.tie_word_embeddings) total += nbytes(head(), ops);
  for (std::size_t i = 0; i < config_.num_hidden_layers; ++i) {
    total += nbytes(linear(i, kQkv), ops) + nbytes(linear(i, kO), ops) +
             nbytes(linear(i, kGateUp), ops) + nbytes(linear(i, kDown), ops);
  }
  return total;
}

}  // namespace infinilm
