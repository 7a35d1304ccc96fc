#include "infinilm/sampling.hpp"

#include <algorithm>

#include "generate/random.hpp"
#include "generate/sampler.hpp"
#include "generate/used_tokens.hpp"
#include "infinilm/error.hpp"

namespace infinilm {

namespace {

// The checked arguments: logits with the penalties applied.
std::vector<float> penalized(const Tensor& logits, const GenerationConfig& config,
                             const TokenIds& tokens, std::size_t prompt_length) {
  check(logits.ndim() == 1 && logits.numel() > 0, "logits: expected shape (V,), found ",
        str_of(logits.shape()));
  check(logits.dtype() == DataType::F32, "logits: expected float32, found ",
        name_of(logits.dtype()));
  check(prompt_length <= tokens.size(), "prompt_length is ", prompt_length, " but there are only ",
        tokens.size(), " tokens");
  config.check();
  const Tensor source = logits.to(Device()).contiguous();
  const auto* first = reinterpret_cast<const float*>(source.data());
  std::vector<float> values(first, first + source.numel());
  UsedTokens used;
  used.follow(tokens, prompt_length);
  apply_penalties(values, config, used.all());
  return values;
}

}  // namespace

Tensor sampling_probabilities(const Tensor& logits, const GenerationConfig& config,
                              const TokenIds& tokens, std::size_t prompt_length) {
  const std::vector<float> values = penalized(logits, config, tokens, prompt_length);
  Tensor result = Tensor::empty(logits.shape());
  auto* out = reinterpret_cast<float*>(result.data());
  std::fill_n(out, values.size(), 0.0F);
  if (is_greedy(config)) {
    out[argmax(values)] = 1;
    return result;
  }
  const std::vector<Candidate> kept = candidates(values, config);
  double total = 0;
  for (const Candidate& c : kept) total += c.weight;
  for (const Candidate& c : kept) out[c.id] = static_cast<float>(c.weight / total);
  return result;
}

TokenIds sample(const Tensor& logits, const GenerationConfig& config, const TokenIds& tokens,
                std::size_t prompt_length, std::size_t draws, std::size_t stream) {
  const std::vector<float> values = penalized(logits, config, tokens, prompt_length);
  if (is_greedy(config)) return TokenIds(draws, argmax(values));
  const std::vector<Candidate> kept = candidates(values, config);
  const std::uint64_t seed = config.seed ? *config.seed : random_seed();
  TokenIds ids(draws);
  for (std::size_t i = 0; i < draws; ++i) {
    ids[i] = draw(kept, uniform(seed, stream, tokens.size() - prompt_length + i));
  }
  return ids;
}

}  // namespace infinilm
