// From the logits of a step to the next token of each sequence: where the logits are, unless somebody on the host has to see them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "generate/random.hpp"
#include "generate/sampler.hpp"
#include "generate/sequence.hpp"
#include "infinilm/error.hpp"
#include "model/arena.hpp"
#include "ops/ops.hpp"

namespace infinilm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Logits row_of(const Tensor& logits, std::size_t row) {
  const auto width = static_cast<std::size_t>(logits.shape().back());
  return {reinterpret_cast<const float*>(logits.data()) + row * width, width};
}

Matrix matrix_of(const Tensor& logits) {
  const std::int64_t width = logits.shape()[1];
  return {reinterpret_cast<float*>(logits.data()), logits.shape()[0], width, width};
}

Matrix rows_of(const Tensor& logits, std::size_t begin, std::size_t count) {
  return matrix_of(logits).slice(static_cast<std::int64_t>(begin),
                                 static_cast<std::int64_t>(count));
}

// A row in memory of its own: the engine's may be held by a hook, and what a processor keeps is its
// own.
Tensor copy_of(Logits row) {
  Tensor copy = Tensor::empty({static_cast<std::int64_t>(row.size())});
  std::copy(row.begin(), row.end(), reinterpret_cast<float*>(copy.data()));
  return copy;
}

// The values of one row, wherever they are.
Tensor row_on_host(const Tensor& logits, std::size_t row) {
  const std::int64_t width = logits.shape()[1];
  const std::byte* at = logits.data() + row * static_cast<std::size_t>(width) * sizeof(float);
  const auto offset = static_cast<std::size_t>(at - logits.buffer()->data());
  return Tensor(logits.buffer(), DataType::F32, {1, width}, {}, offset).to(Device());
}

// What `ask` gives; where the device is short of memory, once more with what lies idle on it.
template <class Ask>
auto with_idle_memory(Ops& ops, Ask ask) {
  try {
    return ask();
  } catch (const OutOfMemory&) {
    Arena::give_back_all(ops);
  }
  return ask();
}

// ln p of ids[i] in row begin + i. Error if that is no distribution.
std::vector<float> log_probabilities(const Tensor& logits, std::size_t begin,
                                     std::span<const std::int64_t> ids) {
  const auto ops = ops_for(logits.device());
  std::vector<float> found(ids.size());
  with_idle_memory(*ops,
                   [&] { ops->log_probabilities(rows_of(logits, begin, ids.size()), ids, found); });
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i])) check_distribution(row_of(row_on_host(logits, begin + i), 0));
  }
  return found;
}

Sampling sampling_of(const GenerationConfig& config, std::int64_t vocabulary) {
  const auto most = static_cast<std::size_t>(vocabulary);
  return {config.temperature, static_cast<std::int64_t>(std::min(config.top_k, most)), config.top_p,
          config.min_p};
}

}  // namespace

bool Generation::wants_prompt_logprobs(const Sequence& sequence) const {
  return config_.prompt_logprobs && sequence.prompt_logprobs.empty();
}

std::vector<Generation::Next> Generation::choose(const Asked& now) const {
  const std::vector<Run>& runs = now.runs;
  const TokenIds tokens = choose_tokens(now);
  std::vector<Next> found(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) found[i].token = tokens[i];
  if (config_.logprobs) {
    const std::vector<float> own = log_probabilities(now.last, 0, tokens);
    for (std::size_t i = 0; i < runs.size(); ++i) found[i].logprob = own[i];
  }
  std::size_t end = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::size_t begin = end;
    end += runs[i].rows;
    const Sequence& sequence = sequences_[runs[i].index];
    if (!wants_prompt_logprobs(sequence)) continue;
    const auto prompt = std::span(sequence.tokens).first(sequence.prompt_length);
    found[i].prompt_logprobs = log_probabilities(now.logits, begin, prompt.subspan(1));
    found[i].prompt_logprobs.insert(found[i].prompt_logprobs.begin(),
                                    std::numeric_limits<float>::quiet_NaN());
  }
  return found;
}

// The row of each run from which its next token comes; the logits themselves if there are no others.
Tensor Generation::last_rows(const std::vector<Run>& runs, const Tensor& logits) const {
  const auto count = static_cast<std::int64_t>(runs.size());
  if (logits.shape()[0] == count) return logits;
  const auto ops = ops_for(logits.device());
  const Shape shape = {count, logits.shape()[1]};
  const auto nbytes = static_cast<std::size_t>(numel_of(shape)) * sizeof(float);
  const auto memory = with_idle_memory(*ops, [&] { return ops->allocate(nbytes); });
  const Tensor last(memory, DataType::F32, shape);
  std::size_t end = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    end += runs[i].rows;
    const Matrix from = rows_of(logits, end - 1, 1), to = rows_of(last, i, 1);
    ops->copy_bytes(from.data, to.data, static_cast<std::size_t>(to.cols) * sizeof(float));
  }
  return last;
}

TokenIds Generation::choose_tokens(const Asked& now) const {
  TokenIds tokens;
  if (!now.choice) {
    const Tensor on_host = now.last.to(Device());
    for (std::size_t i = 0; i < now.runs.size(); ++i) {
      tokens.push_back(choose_on_host(now.runs[i], row_of(on_host, i)));
    }
    return tokens;
  }
  const std::span<const Chosen> found = now.choice->wait();
  for (std::size_t i = 0; i < now.runs.size(); ++i) {
    const Run& run = now.runs[i];
    tokens.push_back(found[i].column);
    // Of +inf the largest can still be taken. What is no distribution is complained about in one place, by an exception.
    const float largest = found[i].largest;
    const bool is_choice = is_greedy(config_) ? largest > -kInfinity : std::isfinite(largest);
    if (is_choice || !sequences_[run.index].finish_reason.empty()) continue;
    choose_on_host(run, row_of(row_on_host(now.last, i), 0));
  }
  return tokens;
}

// Only ids leave the device. Null where they are chosen on the host.
std::unique_ptr<Choice> Generation::choose_on_device(const std::vector<Run>& runs,
                                                     const Tensor& last) const {
  const bool has_processors = std::any_of(runs.begin(), runs.end(), [&](const Run& run) {
    return static_cast<bool>(sequences_[run.index].processor);
  });
  if (last.device() == Device() || has_processors) return nullptr;
  std::vector<double> numbers;
  std::vector<UsedToken> used;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    numbers.push_back(number_of(runs[i]));
    for (UsedToken token : sequences_[runs[i].index].used.all()) {
      token.row = static_cast<std::int32_t>(i);
      used.push_back(token);
    }
  }
  const auto ops = ops_for(last.device());
  return with_idle_memory(*ops, [&] {
    const Tensor own = used.empty() ? last : last.clone();
    const Matrix x = matrix_of(own);
    ops->penalize(x, penalties_of(config_), used);
    return is_greedy(config_) ? ops->argmax(x)
                              : ops->sample(x, sampling_of(config_, x.cols), numbers);
  });
}

std::int64_t Generation::choose_on_host(const Run& run, Logits logits) const {
  const Sequence& sequence = sequences_[run.index];
  if (!has_penalties(config_) && !sequence.processor) {
    return infinilm::choose(logits, config_, number_of(run));
  }
  const Tensor edited = copy_of(logits);
  apply_penalties({reinterpret_cast<float*>(edited.data()), logits.size()}, config_,
                  sequence.used.all());
  if (sequence.processor) sequence.processor(sequence.tokens, edited);
  return infinilm::choose({reinterpret_cast<const float*>(edited.data()), logits.size()}, config_,
                          number_of(run));
}

// The random number that a run draws with.
double Generation::number_of(const Run& run) const {
  return uniform(seed_, run.index, run.end - sequences_[run.index].prompt_length);
}

}  // namespace infinilm
