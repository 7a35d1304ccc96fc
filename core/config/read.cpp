// config.json in, with the meaning that HF's configuration_{llama,mistral,qwen2,qwen3}.py and
// modeling_rope_utils.py give to each key.
#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "config/fields.hpp"
#include "config/json_values.hpp"
#include "config/quantization_config.hpp"
#include "config/rope_scaling.hpp"
#include "infinilm/config.hpp"
#include "infinilm/error.hpp"
#include "io/files.hpp"
#include "io/json.hpp"

namespace infinilm {
namespace {

bool given(const Json& document, const std::string& key) {
  return document.contains(key) && !document[key].is_null();
}

std::string model_type_of(const Json& document, bool literal) {
  constexpr const char* kExpected = "llama, mistral, qwen2 or qwen3";
  const std::string type =
      given(document, "model_type") ? read_text("model_type", document["model_type"]) : "llama";
  const auto& known = supported_model_types();
  if (!literal && std::find(known.begin(), known.end(), type) == known.end()) {
    reject("model_type", kExpected, document["model_type"]);
  }
  // Without a model_type the class says what it is.
  if (!given(document, "model_type") && given(document, "architectures")) {
    const bool llama = document["architectures"] == Json::array({"LlamaForCausalLM"});
    if (!llama)
      reject("model_type",
             concat(kExpected, " beside architectures ", describe(document["architectures"])), {});
  }
  return type;
}

// What HF's class for the model type has for keys that a file omits, and what it fixes whatever the file says.
LlamaConfig defaults_for(const std::string& model_type) {
  LlamaConfig config;
  config.model_type = model_type;
  config.attention_bias = false;
  if (model_type == "mistral") {
    config.intermediate_size = 14336;
    config.num_key_value_heads = 8;
    config.max_position_embeddings = 131072;
    config.sliding_window = 4096;
  } else if (model_type == "qwen2" || model_type == "qwen3") {
    config.vocab_size = 151936;
    config.intermediate_size = 22016;
    config.max_position_embeddings = 32768;
    config.bos_token_id.clear();
    config.eos_token_id.clear();
    config.attention_bias = model_type == "qwen2";
    config.qk_norm = model_type == "qwen3";
  }
  return config;
}

// Keys that HF's class for the model type does not look at, although they are fields of ours.
void drop_ignored_keys(Json& document, const std::string& model_type) {
  if (model_type == "llama") document.erase("sliding_window");
  if (model_type != "llama") document.erase("mlp_bias");
  if (model_type == "mistral" || model_type == "qwen2") document.erase("attention_bias");
}

// Options that change what a model computes and that are not supported.
void refuse_unsupported(const Json& document) {
  for (const char* key : {"compression_config", "per_layer_config"}) {
    if (given(document, key)) reject(key, "none (it is not supported)", document[key]);
  }
  if (given(document, "quantization_config"))
    read_quantization_schemes(dump_json(document["quantization_config"], false));
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts",
                          "num_experts_per_tok", "moe_intermediate_size"}) {
    if (given(document, key) && document[key] != 0) {
      reject(key, "none (mixtures of experts are not supported)", document[key]);
    }
  }
}

void refuse_partial_rotary(const std::string& key, const Json& document) {
  if (!given(document, "partial_rotary_factor")) return;
  const std::string path = key.empty() ? "partial_rotary_factor" : key + ".partial_rotary_factor";
  const Json& value = document["partial_rotary_factor"];
  if (read_number(path, value) != 1.0) reject(path, "1 (partial rotation is not supported)", value);
}

void read_fields(LlamaConfig& config, const Json& document, bool literal) {
  constexpr std::string_view kNullIsDefault[] = {
      "num_key_value_heads", "pretraining_tp", "attention_dropout", "dtype",
      "rope_theta",          "model_type",     "name_or_path"};
  for (const ConfigField& field : config_fields()) {
    const auto found = document.find(field.name);
    if (found == document.end()) continue;
    const bool skip = found->is_null() &&
                      std::find(std::begin(kNullIsDefault), std::end(kNullIsDefault), field.name) !=
                          std::end(kNullIsDefault);
    if (!skip) read_field(config, field, *found, literal);
  }
  // HF: a missing or null num_key_value_heads means no grouping, where the class has no number of its own.
  const bool grouped = document.contains("num_key_value_heads")
                           ? given(document, "num_key_value_heads")
                           : config.model_type != "llama";
  if (!grouped) config.num_key_value_heads = config.num_attention_heads;
}

void read_head_dim(LlamaConfig& config, const Json& document, bool literal) {
  const std::size_t quotient = config.head_dim();
  std::size_t value = quotient;
  if (given(document, "head_dim")) {
    value = read_size("head_dim", document["head_dim"], literal ? 0 : 1);
  } else if (config.model_type == "qwen3" && !literal) {
    if (document.contains("head_dim")) reject("head_dim", "an integer", nullptr);
    value = 128;
  }
  if (value != quotient) config.set_head_dim(value);
  if (!literal) config.decoupled_head_dim = value != quotient;
}

// HF takes `rope_scaling` if it says anything, else `rope_parameters`; both may hold rope_theta.
void read_hf_rope(LlamaConfig& config, Json& document, Json& unknown) {
  refuse_partial_rotary("", document);
  const char* key = given(document, "rope_scaling") && !document["rope_scaling"].empty()
                        ? "rope_scaling"
                        : "rope_parameters";
  if (!given(document, key)) return;
  Json rope = document[key];
  if (!rope.is_object()) reject(key, "an object or null", rope);
  refuse_partial_rotary(key, rope);
  if (given(rope, "rope_theta"))
    config.rope_theta = read_positive(concat(key, ".rope_theta"), rope["rope_theta"]);
  rope.erase("rope_theta");
  for (const char* layers : {"full_attention", "sliding_attention"}) {
    if (rope.contains(layers)) reject(key, "one set of parameters for all layers", rope);
  }
  const Json type =
      rope.value("rope_type", Json()).is_null() ? rope.value("type", Json()) : rope["rope_type"];
  const char* original = "original_max_position_embeddings";
  if ((type == "llama3" || type == "yarn" || type == "longrope") && given(document, original)) {
    rope[original] = document[original];  // HF: the one outside wins
    document.erase(original);
  }
  if (type == "yarn" && rope.contains("factor") && rope["factor"].is_null()) {
    const double longest = static_cast<double>(config.max_position_embeddings);
    rope["factor"] = given(rope, original)
                         ? longest / static_cast<double>(read_size(original, rope[original], 1))
                         : 1.0;
  }
  const RopeScaling scaling = read_rope_scaling(key, rope, &unknown);
  if (scaling != RopeScaling{}) config.rope_scaling = scaling;
}

// Only a window for all layers or for none is supported. HF derives which layers have one from `layer_types`, or for
// qwen from `use_sliding_window` and `max_window_layers`.
void read_sliding_window(LlamaConfig& config, const Json& document) {
  const bool qwen = config.model_type == "qwen2" || config.model_type == "qwen3";
  const bool used = !qwen || (given(document, "use_sliding_window") &&
                              read_bool("use_sliding_window", document["use_sliding_window"]));
  if (!used) config.sliding_window.reset();
  if (qwen && used && !document.contains("sliding_window")) config.sliding_window = 4096;
  if (given(document, "layer_types")) {
    const Json& types = document["layer_types"];
    const std::size_t layers = config.num_hidden_layers < 65536 ? config.num_hidden_layers : 0;
    const Json full = Json::array_t(layers, Json("full_attention"));
    const Json expected =
        config.sliding_window ? Json(Json::array_t(layers, Json("sliding_attention"))) : full;
    if (qwen && types == full) {
      config.sliding_window.reset();
    } else if (types != expected) {
      reject("layer_types",
             concat(config.num_hidden_layers, " times ",
                    config.sliding_window ? "sliding_attention" : "full_attention",
                    " (layers of several kinds are not supported)"),
             types);
    }
  } else if (qwen && config.sliding_window) {
    const std::size_t first = given(document, "max_window_layers")
                                  ? read_size("max_window_layers", document["max_window_layers"])
                                  : 28;
    if (first >= config.num_hidden_layers) {
      config.sliding_window.reset();
    } else if (first > 0) {
      reject("max_window_layers",
             concat("0 or at least num_hidden_layers (", config.num_hidden_layers,
                    "; layers of several kinds are not supported)"),
             first);
    }
  }
}

// `dtype`, or else the older `torch_dtype`; "auto" says nothing.
void read_hf_dtype(LlamaConfig& config, Json& document) {
  const char* key = given(document, "dtype") ? "dtype" : "torch_dtype";
  if (given(document, key) && document[key] != "auto") {
    read_field(config, {key, static_cast<DataType LlamaConfig::*>(&LlamaConfig::dtype)},
               document[key], false);
  }
  document.erase("dtype");
}

// HF's meaning of a HF file.
void read_hf(LlamaConfig& config, Json& document, Json& unknown_rope) {
  drop_ignored_keys(document, config.model_type);
  read_hf_dtype(config, document);
  if (!given(document, "name_or_path") && document.contains("_name_or_path")) {
    document["name_or_path"] = document["_name_or_path"];
  }
  read_fields(config, document, false);
  if (config.model_type == "llama" || config.model_type == "qwen3") {
    config.attention_output_bias = config.attention_bias;
  }
  read_head_dim(config, document, false);
  read_hf_rope(config, document, unknown_rope);
  read_sliding_window(config, document);
}

// The meaning of what `to_json` wrote.
void read_literally(LlamaConfig& config, const Json& document, Json& unknown_rope) {
  if (!document.contains("sliding_window")) config.sliding_window.reset();
  read_fields(config, document, true);
  read_head_dim(config, document, true);
  if (given(document, "rope_scaling")) {
    config.rope_scaling =
        read_rope_scaling("rope_scaling", document["rope_scaling"], &unknown_rope);
  }
}

// What is left for the round trip.
Json extra_of(Json document, const LlamaConfig& config, Json unknown_rope) {
  for (const ConfigField& field : config_fields()) document.erase(field.name);
  for (const char* key : {"torch_dtype", "rope_parameters", "_name_or_path"}) document.erase(key);
  if (config.sliding_window && config.model_type != "mistral") {  // said by sliding_window alone
    document.erase("use_sliding_window");
    document.erase("max_window_layers");
  }
  if (!unknown_rope.empty()) document["rope_scaling"] = std::move(unknown_rope);
  return document;
}

}  // namespace

LlamaConfig LlamaConfig::from_json(const std::string& text) {
  Json document = parse_json(text, "config", kConfigLimits);
  infinilm::check(document.is_object(), "expected a config as a JSON object, found ",
                  describe(document));
  const bool literal = std::any_of(std::begin(kOwnFields), std::end(kOwnFields),
                                   [&](const char* name) { return document.contains(name); });
  LlamaConfig config = defaults_for(model_type_of(document, literal));
  refuse_unsupported(document);
  Json unknown_rope = Json::object();
  if (literal) {
    read_literally(config, document, unknown_rope);
  } else {
    read_hf(config, document, unknown_rope);
  }
  config.extra_ = dump_json(extra_of(std::move(document), config, std::move(unknown_rope)), false);
  return config;
}

LlamaConfig LlamaConfig::from_pretrained(const std::string& directory) {
  infinilm::check<FileNotFoundError>(is_directory(directory), "no such directory: ", directory);
  const std::string path = join_path(directory, "config.json");
  const std::string text = read_file(path, kConfigLimits.max_bytes);
  try {
    return from_json(text);
  } catch (const ValueError& error) {
    throw ValueError(concat(path, ": ", error.what()));
  }
}

void LlamaConfig::set_rope_scaling_json(const std::string& text) {
  const Json value = parse_json(text, "rope_scaling", kConfigLimits);
  if (value.is_null()) {
    rope_scaling.reset();
  } else {
    rope_scaling = read_rope_scaling("rope_scaling", value, nullptr);
  }
}

}  // namespace infinilm
