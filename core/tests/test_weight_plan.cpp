// What a model's weights are said to need, before they are read, is what they take.
#include <cstring>
#include <string>
#include <utility>

#include "model/imported.hpp"
#include "model/weight_plan.hpp"
#include "model/weights.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

// Sizes that no layout has as they are.
LlamaConfig odd_config() {
  LlamaConfig c;
  c.vocab_size = 61;
  c.hidden_size = 72;
  c.intermediate_size = 99;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.attention_bias = true;
  return c;
}

StateDict zeros(const LlamaConfig& config, DataType dtype) {
  StateDict state;
  for (const ParameterInfo& p : parameters(config)) {
    Tensor t = Tensor::empty(p.shape, dtype);
    std::memset(t.data(), 0, t.nbytes());
    state.emplace(p.name, std::move(t));
  }
  return state;
}

void check_plan(const LlamaConfig& config, const StateDict& state, const Quantization& rounded) {
  const auto ops = ops_for(Device());
  const ImportedModules imported(config, state, "a test");
  const LlamaWeights weights = load_weights(config, rounded, state, "a test", *ops, nullptr);
  const WeightPlan plan(config, config.dtype, rounded, state, imported);
  CHECK(plan.nbytes(*ops) == weights.nbytes());
}

}  // namespace

TEST(needed_and_taken_agree) {
  for (const bool tied : {false, true}) {
    for (const DataType compute : {DataType::F32, DataType::BF16}) {
      for (const DataType stored : {DataType::F32, DataType::F16, DataType::BF16}) {
        LlamaConfig config = odd_config();
        config.tie_word_embeddings = tied;
        config.qk_norm = tied;
        config.dtype = compute;
        const StateDict state = zeros(config, stored);
        check_plan(config, state, {});
        check_plan(config, state, {"int8"});
        check_plan(config, state, {"int4"});
        check_plan(config, state, {"int4", 96});
      }
    }
  }
}

TEST(matrices_of_different_types_are_widened) {
  LlamaConfig config = odd_config();
  config.dtype = DataType::F32;
  StateDict state = zeros(config, DataType::BF16);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  state.at(name) = zeros(config, DataType::F32).at(name);
  check_plan(config, state, {});
}
