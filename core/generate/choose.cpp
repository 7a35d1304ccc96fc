// From the logits of a step to the next token of each sequence.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "generate/random.hpp"
#include "generate/sampler.hpp"
#include "generate/sequence.hpp"
#include "infinilm/error.hpp"
#include "ops/ops.hpp"

namespace infinilm {
namespace {

Logits row_of(const Tensor& logits, std::size_t row) {
  const auto width = static_cast<std::size_t>(logits.shape().back());
  return {reinterpret_cast<const float*>(logits.data()) + row * width, width};
}

// A row in memory of its own: the engine's may be held by a hook, and what a processor keeps is its
// own.
Tensor copy_of(Logits row) {
  Tensor copy = Tensor::empty({static_cast<std::int64_t>(row.size())});
  std::copy(row.begin(), row.end(), reinterpret_cast<float*>(copy.data()));
  return copy;
}

Matrix matrix_of(const Tensor& logits) {
  const std::int64_t rows = logits.shape()[0], width = logits.shape()[1];
  return {reinterpret_cast<float*>(logits.data()), rows, width, width};
}

Sampling sampling_of(const GenerationConfig& config, std::int64_t vocabulary) {
  if (is_greedy(config)) return {1.0, 1, 1.0, 0.0, config.logprobs};
  const auto most = static_cast<std::size_t>(vocabulary);
  return {config.temperature, static_cast<std::int64_t>(std::min(config.top_k, most)), config.top_p,
          config.min_p, config.logprobs};
}

}  // namespace

bool Generation::wants_prompt_logprobs(const Sequence& sequence) const {
  return config_.prompt_logprobs && sequence.prompt_logprobs.empty();
}

std::vector<Generation::Next> Generation::choose(const std::vector<Run>& runs,
                                                 const Tensor& logits) {
  if (has_penalties(config_)) {
    for (const Run& run : runs) {
      Sequence& sequence = sequences_[run.index];
      sequence.used.follow(sequence.tokens, sequence.prompt_length);
    }
  }
  if (logits.device() != Device() && can_stay_on_device(runs)) {
    std::vector<Next> found = choose_on_device(runs, logits);
    if (!found.empty()) return found;
  }
  return choose_on_host(runs, logits.to(Device()));
}

// Whether nobody on the host has to see logits.
bool Generation::can_stay_on_device(const std::vector<Run>& runs) const {
  // Log-probabilities are the model's own: two rows for each run would be needed.
  if (config_.logprobs && has_penalties(config_)) return false;
  return std::none_of(runs.begin(), runs.end(), [&](const Run& run) {
    const Sequence& sequence = sequences_[run.index];
    return run.rows > 1 || sequence.processor || wants_prompt_logprobs(sequence);
  });
}

// Only ids leave the device. Empty where it cannot.
std::vector<Generation::Next> Generation::choose_on_device(const std::vector<Run>& runs,
                                                           const Tensor& logits) const {
  std::vector<double> numbers(runs.size());  // 0: the first of the largest
  std::vector<UsedToken> used;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!is_greedy(config_)) numbers[r] = number_of(runs[r]);
    for (UsedToken token : sequences_[runs[r].index].used.all()) {
      token.row = static_cast<std::int32_t>(r);
      used.push_back(token);
    }
  }
  const auto ops = ops_for(logits.device());
  const Tensor own = used.empty() ? logits : logits.clone();
  const Matrix x = matrix_of(own);
  ops->penalize(x, penalties_of(config_), used);
  std::vector<Sampled> sampled(runs.size());
  if (is_greedy(config_) && !config_.logprobs) {
    std::vector<Largest> largest(runs.size());
    ops->argmax(x, largest);
    std::transform(largest.begin(), largest.end(), sampled.begin(), [](const Largest& found) {
      return Sampled{found.column, found.value, found.value, 0.0};
    });
  } else if (!ops->sample(x, sampling_of(config_, x.cols), numbers, sampled)) {
    return {};
  }
  std::vector<Next> found;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const Sampled& s = sampled[r];
    // What is no choice is told apart, and complained about, in one place.
    found.push_back(std::isfinite(s.largest)
                        ? Next{s.column, static_cast<float>(s.value - s.normalizer), {}}
                        : choose_one(runs[r], logits.to(Device()), r));
  }
  return found;
}

// The random number that a run draws with.
double Generation::number_of(const Run& run) const {
  const Sequence& sequence = sequences_[run.index];
  return uniform(seed_, run.index, sequence.tokens.size() - sequence.prompt_length);
}

std::vector<Generation::Next> Generation::choose_on_host(const std::vector<Run>& runs,
                                                         const Tensor& logits) const {
  std::vector<Next> found;
  std::size_t row = 0;
  for (const Run& run : runs) {
    found.push_back(choose_one(run, logits, row));
    row += run.rows;
  }
  return found;
}

Generation::Next Generation::choose_one(const Run& run, const Tensor& logits,
                                        std::size_t row) const {
  const Sequence& sequence = sequences_[run.index];
  Next next;
  if (wants_prompt_logprobs(sequence)) {
    next.prompt_logprobs.push_back(std::numeric_limits<float>::quiet_NaN());
    for (std::size_t t = 1; t < sequence.prompt_length; ++t) {
      const Logits before = row_of(logits, row + t - 1);
      next.prompt_logprobs.push_back(
          log_probability(before, sequence.tokens[t], log_normalizer(before)));
    }
  }
  const Logits own = row_of(logits, row + run.rows - 1);
  const double number = number_of(run);
  if (has_penalties(config_) || sequence.processor) {
    const Tensor edited = copy_of(own);
    apply_penalties({reinterpret_cast<float*>(edited.data()), own.size()}, config_,
                    sequence.used.all());
    if (sequence.processor) sequence.processor(sequence.tokens, edited);
    next.token = infinilm::choose(row_of(edited, 0), config_, number);
  } else {
    next.token = infinilm::choose(own, config_, number);
  }
  if (config_.logprobs) next.logprob = log_probability(own, next.token, log_normalizer(own));
  return next;
}

}  // namespace infinilm
