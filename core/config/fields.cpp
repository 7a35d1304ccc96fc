#include "config/fields.hpp"

#include <algorithm>
#include <string_view>

#include "config/json_values.hpp"
#include "config/rope_scaling.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// Torch's short names, which HF's files may use, beside those of `dtype_from_name`.
std::optional<DataType> dtype_of(const std::string& name) {
  if (name == "half") return DataType::F16;
  if (name == "float") return DataType::F32;
  return dtype_from_name(name);
}

class FieldReader {
 public:
  FieldReader(LlamaConfig& config, const std::string& key, const Json& value, bool literal)
      : config_(config), key_(key), value_(value), literal_(literal) {}

  void operator()(DataType LlamaConfig::* member) const {
    const auto dtype = dtype_of(read_text(key_, value_));
    const bool computable =
        dtype == DataType::F32 || dtype == DataType::F16 || dtype == DataType::BF16;
    if (!dtype || !(computable || literal_)) reject(key_, "float32, float16 or bfloat16", value_);
    config_.*member = *dtype;
  }
  void operator()(std::size_t LlamaConfig::* member) const {
    config_.*member = read_size(key_, value_, lowest());
  }
  void operator()(double LlamaConfig::* member) const {
    config_.*member = literal_                      ? read_number(key_, value_)
                      : key_ == "attention_dropout" ? read_number_in(key_, value_, 0, 1)
                      : key_ == "initializer_range" ? read_number_in(key_, value_, 0, 1e6)
                                                    : read_positive(key_, value_);
  }
  void operator()(bool LlamaConfig::* member) const { config_.*member = read_bool(key_, value_); }
  void operator()(std::string LlamaConfig::* member) const {
    config_.*member = read_text(key_, value_);
    const auto& known = supported_activations();
    if (!literal_ && key_ == "hidden_act" &&
        std::find(known.begin(), known.end(), config_.*member) == known.end()) {
      reject(key_, "one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, relu", value_);
    }
  }
  void operator()(std::optional<std::size_t> LlamaConfig::* member) const {
    (config_.*member).reset();
    if (!value_.is_null()) config_.*member = read_size(key_, value_, lowest());
  }
  void operator()(std::optional<std::int64_t> LlamaConfig::* member) const {
    (config_.*member).reset();
    if (!value_.is_null()) config_.*member = read_id(key_, value_);
  }
  void operator()(TokenIds LlamaConfig::* member) const {
    config_.*member = read_ids(key_, value_);
  }
  void operator()(std::optional<RopeScaling> LlamaConfig::*) const {}
  void operator()(HeadDimField) const {}

 private:
  std::size_t lowest() const { return literal_ ? 0 : 1; }

  LlamaConfig& config_;
  const std::string& key_;
  const Json& value_;
  bool literal_;
};

class FieldWriter {
 public:
  explicit FieldWriter(const LlamaConfig& config) : config_(config) {}

  Json operator()(DataType LlamaConfig::* member) const { return name_of(config_.*member); }
  Json operator()(double LlamaConfig::* member) const { return number_to_json(config_.*member); }
  Json operator()(HeadDimField) const { return config_.head_dim(); }
  Json operator()(std::optional<RopeScaling> LlamaConfig::* member) const {
    return config_.*member ? rope_scaling_to_json(*(config_.*member)) : Json();
  }
  template <class T>
  Json operator()(std::optional<T> LlamaConfig::* member) const {
    return config_.*member ? Json(*(config_.*member)) : Json();
  }
  template <class T>
  Json operator()(T LlamaConfig::* member) const {
    return config_.*member;
  }

 private:
  const LlamaConfig& config_;
};

}  // namespace

const std::vector<ConfigField>& config_fields() {
  using C = LlamaConfig;
  static const std::vector<ConfigField> fields{
      {"dtype", static_cast<DataType C::*>(&C::dtype)},
      {"vocab_size", &C::vocab_size},
      {"hidden_size", &C::hidden_size},
      {"intermediate_size", &C::intermediate_size},
      {"num_hidden_layers", &C::num_hidden_layers},
      {"num_attention_heads", &C::num_attention_heads},
      {"num_key_value_heads", &C::num_key_value_heads},
      {"head_dim", HeadDimField{}},
      {"decoupled_head_dim", &C::decoupled_head_dim},
      {"max_position_embeddings", &C::max_position_embeddings},
      {"rope_theta", &C::rope_theta},
      {"rope_scaling", &C::rope_scaling},
      {"rms_norm_eps", &C::rms_norm_eps},
      {"hidden_act", &C::hidden_act},
      {"model_type", static_cast<std::string C::*>(&C::model_type)},
      {"use_cache", &C::use_cache},
      {"attention_bias", &C::attention_bias},
      {"attention_output_bias", &C::attention_output_bias},
      {"mlp_bias", &C::mlp_bias},
      {"tie_word_embeddings", &C::tie_word_embeddings},
      {"qk_norm", &C::qk_norm},
      {"sliding_window", &C::sliding_window},
      {"attention_dropout", &C::attention_dropout},
      {"initializer_range", &C::initializer_range},
      {"pretraining_tp", &C::pretraining_tp},
      {"name_or_path", static_cast<std::string C::*>(&C::name_or_path)},
      {"pad_token_id", &C::pad_token_id},
      {"bos_token_id", &C::bos_token_id},
      {"eos_token_id", &C::eos_token_id},
  };
  return fields;
}

const std::vector<std::string>& supported_activations() {
  static const std::vector<std::string> names{
      "silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"};
  return names;
}

const std::vector<std::string>& supported_model_types() {
  static const std::vector<std::string> names{"llama", "mistral", "qwen2", "qwen3"};
  return names;
}

void read_field(LlamaConfig& config, const ConfigField& field, const Json& value, bool literal) {
  const std::string key = field.name;
  std::visit(FieldReader(config, key, value, literal), field.member);
}

Json field_to_json(const LlamaConfig& config, const ConfigField& field) {
  return std::visit(FieldWriter(config), field.member);
}

}  // namespace infinilm
