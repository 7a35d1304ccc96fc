#include "generate/stopping.hpp"

#include <algorithm>

#include "infinilm/error.hpp"

namespace infinilm {

namespace {

constexpr std::size_t kDefaultNewTokens = 20;  // HF's

bool contains(const TokenIds& ids, std::int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

std::size_t length_limit(const GenerationConfig& config, std::size_t prompt_length,
                         std::size_t longest, std::size_t index) {
  check(prompt_length < longest, "prompt ", index, " has ", prompt_length,
        " tokens, which leaves no room to generate: the model's longest sequence is ", longest,
        " tokens, prompt and continuation together");
  if (!config.max_new_tokens && config.max_length) {
    check(prompt_length < *config.max_length, "prompt ", index, " has ", prompt_length,
          " tokens, which leaves no room to generate within max_length = ", *config.max_length,
          "; raise it or set max_new_tokens");
    return std::min(*config.max_length, longest);
  }
  const std::size_t wanted = config.max_new_tokens.value_or(kDefaultNewTokens);
  check(wanted > 0, "max_new_tokens must be at least 1, not 0");
  return prompt_length + std::min(wanted, longest - prompt_length);
}

std::string reason_to_stop(const GenerationConfig& config, std::int64_t last, std::size_t length,
                           std::size_t limit) {
  if (contains(config.eos_token_id, last)) return "eos";
  if (contains(config.stop_token_ids, last)) return "stop";
  return length >= limit ? "length" : "";
}

}  // namespace infinilm
