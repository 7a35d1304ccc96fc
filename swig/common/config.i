// ModelConfig and LlamaConfig: values, whose fields are attributes.

// What help() says of the fields.
%feature("docstring") infinilm::ModelConfig::dtype "Compute type: float32 or bfloat16.";
%feature("docstring") infinilm::ModelConfig::model_type "HuggingFace's name of the architecture.";
%feature("docstring") infinilm::ModelConfig::name_or_path "Where the model came from; carried, not used.";
%feature("docstring") infinilm::LlamaConfig::vocab_size "Number of token ids.";
%feature("docstring") infinilm::LlamaConfig::hidden_size "Width of the residual stream.";
%feature("docstring") infinilm::LlamaConfig::intermediate_size "Width of the MLP.";
%feature("docstring") infinilm::LlamaConfig::num_hidden_layers "Number of decoder layers.";
%feature("docstring") infinilm::LlamaConfig::num_attention_heads "Number of query heads.";
%feature("docstring") infinilm::LlamaConfig::num_key_value_heads "Number of key and value heads; fewer than query heads: grouped-query attention.";
%feature("docstring") infinilm::LlamaConfig::head_dim "Width of a head: hidden_size / num_attention_heads until it is set.";
%feature("docstring") infinilm::LlamaConfig::decoupled_head_dim "Whether head_dim may differ from hidden_size / num_attention_heads.";
%feature("docstring") infinilm::LlamaConfig::max_position_embeddings "Length that the model was trained for.";
%feature("docstring") infinilm::LlamaConfig::rope_theta "Base of the rotary embedding's frequencies.";
%feature("docstring") infinilm::LlamaConfig::rms_norm_eps "Added to the mean square in every norm.";
%feature("docstring") infinilm::LlamaConfig::hidden_act "The MLP's activation, by HuggingFace's name.";
%feature("docstring") infinilm::LlamaConfig::use_cache "Whether generation keeps keys and values; without, it runs the whole sequence at each step.";
%feature("docstring") infinilm::LlamaConfig::attention_bias "Bias of the q, k and v projections (True by default for 9G7B).";
%feature("docstring") infinilm::LlamaConfig::attention_output_bias "Bias of the attention's output projection.";
%feature("docstring") infinilm::LlamaConfig::mlp_bias "Bias of the MLP's projections.";
%feature("docstring") infinilm::LlamaConfig::tie_word_embeddings "Whether the embedding serves as the output projection too.";
%feature("docstring") infinilm::LlamaConfig::qk_norm "RMSNorm on the queries and keys of each head (Qwen3).";
%feature("docstring") infinilm::LlamaConfig::sliding_window "How many positions back attention sees; none: all (Mistral).";
%feature("docstring") infinilm::LlamaConfig::attention_dropout "Carried; not used in inference.";
%feature("docstring") infinilm::LlamaConfig::initializer_range "Carried; not used in inference.";
%feature("docstring") infinilm::LlamaConfig::pretraining_tp "Carried; not used in inference.";
%feature("docstring") infinilm::LlamaConfig::pad_token_id "The id that fills up batches, if there is one.";
%feature("docstring") infinilm::LlamaConfig::bos_token_id "Ids that begin a sequence; set by one id or several.";
%feature("docstring") infinilm::LlamaConfig::eos_token_id "Ids that end a sequence; set by one id or several.";

// `rope_scaling` goes in and out as JSON (rope_scaling_json, set_rope_scaling_json); a language with mappings makes an
// attribute of them.
%ignore infinilm::RopeScaling;
%ignore infinilm::LlamaConfig::rope_scaling;
%ignore infinilm::LlamaConfig::quantization_config_json;

// Follows other fields until it is set, hence two functions in C++ and one attribute here.
%ignore infinilm::LlamaConfig::head_dim() const;
%ignore infinilm::LlamaConfig::set_head_dim;
%extend infinilm::LlamaConfig {
  std::size_t head_dim;
  /// Whether every field has the same value.
  bool equals(const infinilm::LlamaConfig& other) const { return *$self == other; }
  /// An independent config with the same fields.
  infinilm::LlamaConfig copy() const { return *$self; }
}
%{
static std::size_t infinilm_LlamaConfig_head_dim_get(infinilm::LlamaConfig* self) { return self->head_dim(); }
static void infinilm_LlamaConfig_head_dim_set(infinilm::LlamaConfig* self, std::size_t value) {
  self->set_head_dim(value);
}
%}

%include "infinilm/config.hpp"
