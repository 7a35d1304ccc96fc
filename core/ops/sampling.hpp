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
};

// Of a row. A NaN counts as larger than anything; where `largest` is not finite, the row is no distribution, and the column no draw.
struct Chosen {
  std::int64_t column = 0;
  float largest = 0;
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
