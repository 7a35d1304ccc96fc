// config.json out: literally (`to_json`), or as Transformers reads it (`save_pretrained`).
#include <string>
#include <vector>

#include "config/fields.hpp"
#include "config/rope_scaling.hpp"
#include "infinilm/config.hpp"
#include "infinilm/error.hpp"
#include "io/files.hpp"
#include "io/json.hpp"

namespace infinilm {
namespace {

// Every field, over the keys that came with the file.
Json document_of(const LlamaConfig& config, const std::string& extra) {
  Json document = parse_json(extra, "config", kWrittenConfigLimits);
  const Json unknown_rope = document.value("rope_scaling", Json::object());
  for (const ConfigField& field : config_fields())
    document[field.name] = field_to_json(config, field);
  if (config.rope_scaling) document["rope_scaling"].update(unknown_rope);
  return document;
}

// HF's flags cover q, k, v and o together, or are fixed by the model type.
void check_expressible(const LlamaConfig& c) {
  const auto refuse = [&](const std::string& field, bool value, const char* expected) {
    throw ValueError(concat("HuggingFace's config.json cannot express ", field, "=",
                            value ? "True" : "False", " for model_type ", quoted(c.model_type),
                            ": expected ", expected));
  };
  const bool together = c.model_type == "llama" || c.model_type == "qwen3";
  if (together && c.attention_bias != c.attention_output_bias) {
    refuse("attention_output_bias", c.attention_output_bias,
           "the same as attention_bias (q, k and v alone have a bias in model_type \"qwen2\")");
  }
  const bool qwen2 = c.model_type == "qwen2";
  if (!together && c.attention_bias != qwen2)
    refuse("attention_bias", c.attention_bias, qwen2 ? "True" : "False");
  if (!together && c.attention_output_bias) refuse("attention_output_bias", true, "False");
  if (c.mlp_bias && c.model_type != "llama") refuse("mlp_bias", true, "False");
  const bool qwen3 = c.model_type == "qwen3";
  if (c.qk_norm != qwen3) refuse("qk_norm", c.qk_norm, qwen3 ? "True" : "False");
  check(!c.sliding_window || c.model_type != "llama",
        "HuggingFace's config.json cannot express a sliding_window for model_type \"llama\"");
  check(c.bos_token_id.size() <= 1, "HuggingFace's config.json holds one bos_token_id, found ",
        c.bos_token_id.size(), ": ", describe(c.bos_token_id));
}

Json ids_to_json(const TokenIds& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? Json(ids[0]) : Json(ids);
}

void write_sliding_window(Json& document, const LlamaConfig& config) {
  const bool window = config.sliding_window.has_value();
  if (config.model_type == "llama") document.erase("sliding_window");
  if (window && (config.model_type == "qwen2" || config.model_type == "qwen3")) {
    document["use_sliding_window"] = true;
    document["max_window_layers"] = 0;
  }
  if (document.contains("layer_types")) {
    document["layer_types"] = std::vector<std::string>(
        config.num_hidden_layers, window ? "sliding_attention" : "full_attention");
  }
}

}  // namespace

std::string LlamaConfig::to_json() const { return dump_json(document_of(*this, extra_), true); }

std::string LlamaConfig::to_hf_json() const {
  check();
  check_expressible(*this);
  Json document = document_of(*this, extra_);
  for (const char* key : kOwnFields) document.erase(key);
  document["bos_token_id"] = ids_to_json(bos_token_id);
  document["eos_token_id"] = ids_to_json(eos_token_id);
  const std::string type = rope_scaling ? rope_scaling->rope_type : "default";
  if (type == "default") document["rope_scaling"] = nullptr;
  if (type == "llama3" || type == "yarn" || type == "longrope") {
    // HF gives the one outside priority over rope_scaling's own.
    document.erase("original_max_position_embeddings");
  }
  if (model_type != "llama") document.erase("mlp_bias");
  if (model_type == "mistral" || model_type == "qwen2") document.erase("attention_bias");
  if (!name_or_path.empty()) document["_name_or_path"] = name_or_path;
  document.erase("name_or_path");
  write_sliding_window(document, *this);
  return dump_json(document, true);
}

void LlamaConfig::save_pretrained(const std::string& directory) const {
  const std::string text = to_hf_json();
  make_directories(directory);
  write_file(join_path(directory, "config.json"), text);
}

std::string LlamaConfig::quantization_config_json() const {
  return dump_json(
      parse_json(extra_, "config", kWrittenConfigLimits).value("quantization_config", Json()),
      false);
}

std::string LlamaConfig::rope_scaling_json() const {
  return rope_scaling ? dump_json(rope_scaling_to_json(*rope_scaling), false) : "null";
}

}  // namespace infinilm
