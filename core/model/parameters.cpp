#include "model/parameters.hpp"

#include <utility>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

std::int64_t dim(std::size_t value) { return static_cast<std::int64_t>(value); }

void add_linear(std::vector<ParameterInfo>& list, const std::string& name, std::int64_t outputs,
                std::int64_t inputs, bool bias) {
  list.push_back({name + ".weight", {outputs, inputs}});
  if (bias) list.push_back({name + ".bias", {outputs}});
}

}  // namespace

std::string layer_parameter(std::size_t layer, const std::string& name) {
  return concat("model.layers.", layer, ".", name);
}

std::vector<ParameterInfo> layer_parameters(const LlamaConfig& c) {
  const std::int64_t hidden = dim(c.hidden_size);
  const std::int64_t inner = dim(c.intermediate_size);
  const std::int64_t q = dim(c.num_attention_heads * c.head_dim());
  const std::int64_t kv = dim(c.kv_dim());
  std::vector<ParameterInfo> list;
  add_linear(list, "self_attn.q_proj", q, hidden, c.attention_bias);
  add_linear(list, "self_attn.k_proj", kv, hidden, c.attention_bias);
  add_linear(list, "self_attn.v_proj", kv, hidden, c.attention_bias);
  add_linear(list, "self_attn.o_proj", hidden, q, c.attention_output_bias);
  if (c.qk_norm) {
    list.push_back({"self_attn.q_norm.weight", {dim(c.head_dim())}});
    list.push_back({"self_attn.k_norm.weight", {dim(c.head_dim())}});
  }
  add_linear(list, "mlp.gate_proj", inner, hidden, c.mlp_bias);
  add_linear(list, "mlp.up_proj", inner, hidden, c.mlp_bias);
  add_linear(list, "mlp.down_proj", hidden, inner, c.mlp_bias);
  list.push_back({"input_layernorm.weight", {hidden}});
  list.push_back({"post_attention_layernorm.weight", {hidden}});
  return list;
}

ParameterInfo embedding_parameter(const LlamaConfig& c) {
  return {kEmbedTokens, {dim(c.vocab_size), dim(c.hidden_size)}};
}

std::vector<ParameterInfo> head_parameters(const LlamaConfig& c) {
  std::vector<ParameterInfo> list = {{kFinalNorm, {dim(c.hidden_size)}}};
  if (!c.tie_word_embeddings) list.push_back({kLmHead, {dim(c.vocab_size), dim(c.hidden_size)}});
  return list;
}

std::vector<ParameterInfo> parameters(const LlamaConfig& config) {
  config.check();
  std::vector<ParameterInfo> list = {embedding_parameter(config)};
  const std::vector<ParameterInfo> of_layer = layer_parameters(config);
  for (std::size_t i = 0; i < config.num_hidden_layers; ++i) {
    for (const ParameterInfo& p : of_layer) list.push_back({layer_parameter(i, p.name), p.shape});
  }
  for (ParameterInfo& p : head_parameters(config)) list.push_back(std::move(p));
  return list;
}

}  // namespace infinilm
