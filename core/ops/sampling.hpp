// What is asked of a row of logits [V] to get a token from it, for devices that do it where the logits are. The host's own way, and
// what each setting means: generate/sampler.hpp.
#pragma once

#include <cstdint>

namespace infinilm {

// softmax(row / temperature), of which top_k, top_p and min_p keep a part, in this order.
struct Sampling {
  double temperature = 1.0;  // > 0
  std::int64_t top_k = 0;    // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  bool normalize = false;  // whether Sampled::normalizer is asked for
};

struct Sampled {
  std::int64_t column = 0;
  float value = 0;        // of that column
  float largest = 0;      // not finite: the row is no distribution, and nothing was drawn
  double normalizer = 0;  // ln sum exp(row)
};

struct Penalties {
  double repetition = 1.0;
  double presence = 0.0;
  double frequency = 0.0;
};

// A token that the sequence of a row has.
struct UsedToken {
  std::int64_t id = 0;
  std::int32_t generated = 0;  // how often; 0: it is in the prompt only
  std::int32_t row = 0;
};

// Its logit from then on. Repetition (HF, CTRL) counts for the prompt, too; presence and frequency are OpenAI's and vLLM's.
constexpr float penalized(float logit, std::int32_t generated, const Penalties& p) {
  if (p.repetition != 1.0) {
    const auto factor = static_cast<float>(p.repetition);
    logit = logit < 0 ? logit * factor : logit / factor;
  }
  if (generated == 0) return logit;
  return static_cast<float>(logit - generated * p.frequency - p.presence);
}

}  // namespace infinilm
