// The sampler alone, without a model: for tests and for those who bring their own logits.
#pragma once

#include <cstddef>

#include "infinilm/generate.hpp"

namespace infinilm {

/// The distribution that the next token is drawn from: softmax after penalties, temperature, top_k,
/// top_p and min_p; greedy settings give 1 to one token. logits: float32 [V] -> float32 [V].
/// `tokens`: the sequence so far, of which the first `prompt_length` are its prompt. Throws
/// ValueError for a wrong shape, dtype or setting, Error for logits that are NaN.
Tensor sampling_probabilities(const Tensor& logits, const GenerationConfig& config,
                              const TokenIds& tokens = {}, std::size_t prompt_length = 0);

/// `draws` tokens of that distribution, for the positions from `tokens` on: the first is what a run
/// with this seed gives its sequence `stream` there. Without a seed each call draws others.
TokenIds sample(const Tensor& logits, const GenerationConfig& config, const TokenIds& tokens = {},
                std::size_t prompt_length = 0, std::size_t draws = 1, std::size_t stream = 0);

}  // namespace infinilm
