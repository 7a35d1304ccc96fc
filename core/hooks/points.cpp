#include "hooks/points.hpp"

namespace infinilm {

const std::vector<HookPointPattern>& hook_point_table() {
  static const std::vector<HookPointPattern> table = {
      {"embed_tokens", "[T, H]", "after the embedding", {}, false},
      {"layer{i}_input", "[T, H]", "residual stream entering the layer", {}, true},
      {"layer{i}_input_layernorm", "[T, H]", "after the norm", {}, true},
      {"layer{i}_attention_q_after_proj",
       "[T, A*D]",
       "after projection and bias",
       {"layer{i}_q_after_proj", "layer{i}_attention_q_proj"},
       true},
      {"layer{i}_attention_k_after_proj",
       "[T, K*D]",
       "after projection and bias",
       {"layer{i}_k_after_proj", "layer{i}_attention_k_proj"},
       true},
      {"layer{i}_attention_v_after_proj",
       "[T, K*D]",
       "after projection and bias",
       {"layer{i}_v_after_proj", "layer{i}_attention_v_proj"},
       true},
      {"layer{i}_attention_q_after_reshape", "[T, A, D]", "the same values per head", {}, true},
      {"layer{i}_attention_k_after_reshape", "[T, K, D]", "the same values per head", {}, true},
      {"layer{i}_attention_v_after_reshape", "[T, K, D]", "the same values per head", {}, true},
      {"layer{i}_attention_q_before_rope",
       "[T, A, D]",
       "after q norm where there is one",
       {},
       true},
      {"layer{i}_attention_k_before_rope",
       "[T, K, D]",
       "after k norm where there is one",
       {},
       true},
      {"layer{i}_attention_q_after_rope", "[T, A, D]", "after the rotation", {}, true},
      {"layer{i}_attention_k_after_rope", "[T, K, D]", "after the rotation", {}, true},
      {"layer{i}_attention_scores",
       "[A, tokens, S]",
       "scaled q·k, masked entries -inf; [batch, A, tokens, S] for a rectangular batch, [A, all "
       "tokens, "
       "longest S] for a packed one",
       {},
       true},
      {"layer{i}_attention_weights",
       "[A, tokens, S]",
       "softmax probabilities, of the same shape as the scores",
       {},
       true},
      {"layer{i}_attention_attn_flat_before_o_proj",
       "[T, A*D]",
       "attention result before o_proj",
       {"layer{i}_attention_attention_output"},
       true},
      {"layer{i}_attention_output", "[T, H]", "after o_proj", {}, true},
      {"layer{i}_before_post_attention_layernorm",
       "[T, H]",
       "residual stream between attention and MLP",
       {"layer{i}_after_attention_residual"},
       true},
      {"layer{i}_post_attention_layernorm", "[T, H]", "after the norm", {}, true},
      {"layer{i}_mlp_gate_proj", "[T, I]", "after projection and bias", {}, true},
      {"layer{i}_mlp_up_proj", "[T, I]", "after projection and bias", {}, true},
      {"layer{i}_mlp_intermediate", "[T, I]", "act(gate) * up", {}, true},
      {"layer{i}_mlp", "[T, H]", "after down_proj", {"layer{i}_mlp_output"}, true},
      {"layer{i}_output",
       "[T, H]",
       "residual stream leaving the layer",
       {"layer{i}_after_mlp_residual"},
       true},
      {"before_final_norm", "[T, H]", "residual stream after the last layer", {}, false},
      {"final_norm", "[T, H]", "after the final norm", {}, false},
      {"hidden_states_before_lm_head", "[T, H]", "what the head multiplies", {}, false},
      {"logits", "[T, V]", "after the head; in generate only the rows that are sampled", {}, false},
  };
  return table;
}

std::string point_name(const std::string& pattern, int layer) {
  const std::size_t at = pattern.find("{i}");
  if (at == std::string::npos || layer < 0) return pattern;
  return std::string(pattern).replace(at, 3, std::to_string(layer));
}

std::size_t point_count(std::size_t num_layers) noexcept {
  return static_cast<std::size_t>(kPointCount - kLayerPoints) + num_layers * kLayerPoints;
}

std::size_t point_index(Point point, int layer, std::size_t num_layers) noexcept {
  const int p = static_cast<int>(point);
  if (p < kFirstLayerPoint) return static_cast<std::size_t>(p);
  if (p < kFirstLayerPoint + kLayerPoints)
    return static_cast<std::size_t>(p + layer * kLayerPoints);
  return static_cast<std::size_t>(p - kLayerPoints) + num_layers * kLayerPoints;
}

}  // namespace infinilm
