// From one row of logits to one token. Pure functions: no model, no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "infinilm/generate.hpp"
#include "ops/sampling.hpp"

namespace infinilm {

using Logits = std::span<const float>;  // [V]

// A token that may be drawn, and its probability up to a common factor.
struct Candidate {
  std::int64_t id;
  double weight;
};

// The first of the largest. Throws Error if a logit is NaN or if all are -inf.
std::int64_t argmax(Logits logits);

// Throws Error if softmax(logits) is no distribution (NaN, +inf, all -inf).
void check_distribution(Logits logits);

// True if no token is drawn: the next one is the argmax.
bool is_greedy(const GenerationConfig& config) noexcept;

// True if `apply_penalties` does anything.
bool has_penalties(const GenerationConfig& config) noexcept;

Penalties penalties_of(const GenerationConfig& config) noexcept;

// In place; ids that are none of the vocabulary are left out.
void apply_penalties(std::span<float> logits, const GenerationConfig& config,
                     std::span<const UsedToken> used);

// What is left after temperature, top_k, top_p and min_p, in this order as in HF, sorted by id.
// Equal logits at the edge of top_k are all kept, as in HF; of equal ones at the edge of top_p the
// lower ids are kept. Never empty.
std::vector<Candidate> candidates(Logits logits, const GenerationConfig& config);

// The candidate at `uniform` in [0, 1) of the cumulative distribution.
std::int64_t draw(const std::vector<Candidate>& candidates, double uniform);

// argmax or draw, as `config` asks.
std::int64_t choose(Logits logits, const GenerationConfig& config, double uniform);

}  // namespace infinilm
