#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "infinilm/error.hpp"

namespace infinilm {

namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

// The largest logit, which has to be finite: only then is softmax(logits) a distribution.
double finite_maximum(Logits logits) {
  const float maximum = logits[static_cast<std::size_t>(argmax(logits))];
  check<Error>(std::isfinite(maximum), "the logits are no distribution: one of them is +inf");
  return maximum;
}

// The logit of rank k (counting from 1): what lies below is out.
float kth_largest(Logits logits, std::size_t k) {
  std::vector<float> largest;  // k or more of them, thinned out now and then
  const std::size_t many = std::min(4 * k + 1024, logits.size());
  largest.reserve(many);
  float lowest = kExcluded;
  const auto thin_out = [&] {
    const auto kth = largest.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(largest.begin(), kth, largest.end(), std::greater<float>());
    lowest = *kth;
    largest.resize(k);
  };
  for (const float logit : logits) {
    if (logit < lowest) continue;
    largest.push_back(logit);
    if (largest.size() == many) thin_out();
  }
  thin_out();
  return lowest;
}

// Keeps the heaviest until their share reaches `top_p`. Sorts in growing chunks, since a few
// suffice as a rule.
void keep_top_p(std::vector<Candidate>& all, Logits logits, double top_p) {
  // By their logits: different ones may weigh the same.
  const auto is_heavier = [&](const Candidate& a, const Candidate& b) {
    const float x = logits[static_cast<std::size_t>(a.id)],
                y = logits[static_cast<std::size_t>(b.id)];
    return x > y || (x == y && a.id < b.id);
  };
  double total = 0;
  for (const Candidate& c : all) total += c.weight;
  double mass = 0;
  std::size_t kept = 0;
  for (std::size_t chunk = 64; kept < all.size(); chunk *= 4) {
    const std::size_t end = std::min(all.size(), kept + chunk);
    const auto at = [&](std::size_t i) { return all.begin() + static_cast<std::ptrdiff_t>(i); };
    if (end < all.size()) std::nth_element(at(kept), at(end), all.end(), is_heavier);
    std::sort(at(kept), at(end), is_heavier);
    for (; kept < end; ++kept) {
      if (mass >= top_p * total) {
        all.resize(kept);
        return;
      }
      mass += all[kept].weight;
    }
  }
}

}  // namespace

std::int64_t argmax(Logits logits) {
  check<Error>(!logits.empty(), "no logits to choose from");
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    check<Error>(!std::isnan(logits[i]), "the logits are not finite: that of token ", i,
                 " is NaN; a hook, a logits processor or a damaged weight may have made it");
    if (logits[i] > logits[best]) best = i;
  }
  check<Error>(logits[best] != kExcluded, "every token is excluded: all logits are -inf");
  return static_cast<std::int64_t>(best);
}

void check_distribution(Logits logits) { finite_maximum(logits); }

bool is_greedy(const GenerationConfig& config) noexcept {
  return !config.do_sample || config.temperature == 0;
}

bool has_penalties(const GenerationConfig& config) noexcept {
  return config.repetition_penalty != 1 || config.presence_penalty != 0 ||
         config.frequency_penalty != 0;
}

Penalties penalties_of(const GenerationConfig& config) noexcept {
  return {config.repetition_penalty, config.presence_penalty, config.frequency_penalty};
}

void apply_penalties(std::span<float> logits, const GenerationConfig& config,
                     std::span<const UsedToken> used) {
  const Penalties how = penalties_of(config);
  for (const UsedToken& u : used) {
    if (u.id < 0 || static_cast<std::size_t>(u.id) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(u.id)];
    logit = penalized(logit, u.generated, how);
  }
}

std::vector<Candidate> candidates(Logits logits, const GenerationConfig& config) {
  const double maximum = finite_maximum(logits);
  const bool cut = config.top_k != 0 && config.top_k < logits.size();
  const float lowest = cut ? kth_largest(logits, config.top_k) : kExcluded;
  std::vector<Candidate> kept;
  if (cut) kept.reserve(config.top_k);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] < lowest) continue;
    // The largest is subtracted first, so that no temperature, however small, overflows.
    const double weight = std::exp((logits[i] - maximum) / config.temperature);
    if (weight > 0) kept.push_back({static_cast<std::int64_t>(i), weight});
  }
  if (config.top_p < 1) keep_top_p(kept, logits, config.top_p);
  // The heaviest weighs 1, so a weight is the share of the largest probability.
  if (config.min_p > 0) {
    std::erase_if(kept, [&](const Candidate& c) { return c.weight < config.min_p; });
  }
  if (config.top_p < 1) {
    std::sort(kept.begin(), kept.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  return kept;
}

std::int64_t draw(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0;
  for (const Candidate& c : candidates) total += c.weight;
  double rest = uniform * total;
  for (const Candidate& c : candidates) {
    if (rest < c.weight) return c.id;
    rest -= c.weight;
  }
  return candidates.back().id;  // rounding left something over
}

std::int64_t choose(Logits logits, const GenerationConfig& config, double uniform) {
  return is_greedy(config) ? argmax(logits) : draw(candidates(logits, config), uniform);
}

}  // namespace infinilm
