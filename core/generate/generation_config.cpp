// HF's generation_config.json, and what of it can be honoured.
#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "config/json_values.hpp"
#include "infinilm/error.hpp"
#include "infinilm/generate.hpp"
#include "io/files.hpp"
#include "io/json.hpp"

namespace infinilm {
namespace {

// Options of HF that change the result and are not supported, with the values at which they do nothing
// (besides null). Options that only change speed or form of HF's output are ignored.
struct Unsupported {
  const char* name;
  std::vector<Json> neutral;
};
const std::vector<Unsupported>& unsupported() {
  static const std::vector<Unsupported> table{
      {"num_beams", {1}},
      {"num_beam_groups", {1}},
      {"num_return_sequences", {1}},
      {"penalty_alpha", {0}},
      {"dola_layers", {}},
      {"constraints", {}},
      {"force_words_ids", {}},
      {"min_length", {0}},
      {"min_new_tokens", {0}},
      {"max_time", {}},
      {"stop_strings", {Json::array()}},
      {"top_h", {}},
      {"typical_p", {1}},
      {"epsilon_cutoff", {0}},
      {"eta_cutoff", {0}},
      {"encoder_repetition_penalty", {1}},
      {"no_repeat_ngram_size", {0}},
      {"encoder_no_repeat_ngram_size", {0}},
      {"bad_words_ids", {Json::array()}},
      {"forced_bos_token_id", {}},
      {"forced_eos_token_id", {}},
      {"exponential_decay_length_penalty", {}},
      {"suppress_tokens", {Json::array()}},
      {"begin_suppress_tokens", {Json::array()}},
      {"sequence_bias", {Json::object(), Json::array()}},
      {"token_healing", {false}},
      {"guidance_scale", {1}},
      {"watermarking_config", {}},
      {"assistant_ensemble_weight", {}},
  };
  return table;
}

void refuse_unsupported_generation(const Json& document) {
  for (const Unsupported& option : unsupported()) {
    const auto found = document.find(option.name);
    if (found == document.end() || found->is_null()) continue;
    const bool neutral =
        std::find(option.neutral.begin(), option.neutral.end(), *found) != option.neutral.end();
    if (!neutral) {
      reject(option.name,
             option.neutral.empty()
                 ? "none (it is not supported)"
                 : concat(option.neutral[0].dump(), " or none (nothing else is supported)"),
             *found);
    }
  }
  if (document.value("cache_implementation", Json()) == "quantized") {
    reject("cache_implementation", "one that keeps the values (a quantized cache is not supported)",
           document["cache_implementation"]);
  }
}

template <std::unsigned_integral T>
void set(T& field, const std::string& key, const Json& value) {
  field = read_size(key, value);
}
void set(double& field, const std::string& key, const Json& value) {
  field = read_number(key, value);
}
void set(bool& field, const std::string& key, const Json& value) { field = read_bool(key, value); }
void set(std::int64_t& field, const std::string& key, const Json& value) {
  field = read_id(key, value);
}
void set(TokenIds& field, const std::string& key, const Json& value) {
  field = read_ids(key, value);
}
template <class T>
void set(std::optional<T>& field, const std::string& key, const Json& value) {
  set(field.emplace(), key, value);
}

// Calls `visit(name, field)` for every field; `Config` may be const.
template <class Config, class Visit>
void for_each_field(Config& c, Visit visit) {
  visit("max_new_tokens", c.max_new_tokens);
  visit("max_length", c.max_length);
  visit("do_sample", c.do_sample);
  visit("temperature", c.temperature);
  visit("top_k", c.top_k);
  visit("top_p", c.top_p);
  visit("min_p", c.min_p);
  visit("repetition_penalty", c.repetition_penalty);
  visit("presence_penalty", c.presence_penalty);
  visit("frequency_penalty", c.frequency_penalty);
  visit("seed", c.seed);
  visit("eos_token_id", c.eos_token_id);
  visit("pad_token_id", c.pad_token_id);
  visit("stop_token_ids", c.stop_token_ids);
  visit("use_cache", c.use_cache);
  visit("logprobs", c.logprobs);
  visit("prompt_logprobs", c.prompt_logprobs);
}

Json to_value(double number) { return number_to_json(number); }
template <class T>
Json to_value(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}
template <class T>
Json to_value(const T& value) {
  return value;
}

}  // namespace

void GenerationConfig::check() const {
  std::string problems;
  const auto expect = [&](bool ok, const char* name, const char* expected, auto found) {
    if (!ok)
      problems +=
          concat(problems.empty() ? "" : "; ", name, " must be ", expected, ", found ", found);
  };
  expect(max_new_tokens.value_or(1) > 0, "max_new_tokens", "above 0", max_new_tokens.value_or(0));
  expect(max_length.value_or(1) > 0, "max_length", "above 0", max_length.value_or(0));
  expect(std::isfinite(temperature) && temperature >= 0, "temperature",
         "a finite number of 0 or more", temperature);
  expect(top_p > 0 && top_p <= 1, "top_p", "above 0 and at most 1", top_p);
  expect(min_p >= 0 && min_p <= 1, "min_p", "from 0 to 1", min_p);
  expect(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition_penalty",
         "a finite number above 0", repetition_penalty);
  expect(std::isfinite(presence_penalty), "presence_penalty", "finite", presence_penalty);
  expect(std::isfinite(frequency_penalty), "frequency_penalty", "finite", frequency_penalty);
  infinilm::check(problems.empty(), problems);
}

GenerationConfig GenerationConfig::from_json(const std::string& text) {
  const Json document = parse_json(text, "generation config", kConfigLimits);
  infinilm::check(document.is_object(), "expected a generation config as a JSON object, found ",
                  describe(document));
  refuse_unsupported_generation(document);
  GenerationConfig config;
  for_each_field(config, [&](const char* name, auto& field) {
    const auto found = document.find(name);
    if (found != document.end() && !found->is_null()) set(field, name, *found);
  });
  config.check();
  return config;
}

GenerationConfig GenerationConfig::from_pretrained(const std::string& directory,
                                                   const LlamaConfig& config) {
  const std::string path = join_path(directory, "generation_config.json");
  if (!is_file(path)) {
    GenerationConfig result;
    result.eos_token_id = config.eos_token_id;
    result.pad_token_id = config.pad_token_id;
    return result;
  }
  const std::string text = read_file(path, kConfigLimits.max_bytes);
  try {
    return from_json(text);
  } catch (const ValueError& error) {
    throw ValueError(concat(path, ": ", error.what()));
  }
}

std::string GenerationConfig::to_json() const {
  Json document = Json::object();
  for_each_field(*this,
                 [&](const char* name, const auto& field) { document[name] = to_value(field); });
  return dump_json(document, true);
}

}  // namespace infinilm
