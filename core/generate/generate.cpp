#include "infinilm/generate.hpp"

#include <algorithm>
#include <utility>

#include "generate/make_room.hpp"
#include "generate/random.hpp"
#include "generate/sampler.hpp"
#include "generate/sequence.hpp"
#include "generate/stopping.hpp"
#include "infinilm/error.hpp"

namespace infinilm {

namespace {

// Sets a flag as long as it lives.
class Scope {
 public:
  explicit Scope(bool& flag) : flag_(flag) { flag_ = true; }
  ~Scope() { flag_ = false; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  bool& flag_;
};

// Takes what a failed step has put into the cache out again.
class Rollback {
 public:
  explicit Rollback(KvCache* cache) : cache_(cache) {
    if (cache_ == nullptr) return;
    for (std::size_t i = 0; i < cache_->batch_size(); ++i) lengths_.push_back(cache_->length(i));
  }
  ~Rollback() {
    try {
      for (std::size_t i = 0; i < lengths_.size(); ++i) {
        // Shorter than before only if a callback cut it itself, which is to stay.
        if (cache_->length(i) > lengths_[i]) cache_->truncate(lengths_[i], i);
      }
    } catch (const Error&) {
      // Somebody else runs a forward pass on this cache. The next step looks at what it holds then.
    }
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  void keep() { lengths_.clear(); }

 private:
  KvCache* cache_;
  std::vector<std::size_t> lengths_;
};

// How many tokens of the sequence the cache holds; ValueError if it holds others.
std::size_t held_by(const KvCache& cache, std::size_t slot, const TokenIds& tokens) {
  constexpr auto kRemedy =
      "; a cache has to hold a prefix of its prompt: truncate or clear it, or pass a new one";
  const TokenIds held = cache.tokens(slot);
  check(held.size() <= tokens.size(), "the cache holds ", held.size(), " tokens for sequence ",
        slot, ", which has only ", tokens.size(), kRemedy);
  const auto [in_cache, expected] = std::mismatch(held.begin(), held.end(), tokens.begin());
  if (in_cache != held.end()) {
    throw ValueError(concat("the cache of sequence ", slot, " holds token ", *in_cache,
                            " at position ", in_cache - held.begin(), ", where the prompt has ",
                            *expected, kRemedy));
  }
  return held.size();
}

}  // namespace

Generation::Generation(std::shared_ptr<LlamaForCausalLM> model, std::vector<TokenIds> prompts,
                       GenerationConfig config, std::vector<LogitsProcessor> processors,
                       std::shared_ptr<KvCache> cache)
    : model_(std::move(model)), config_(std::move(config)), cache_(std::move(cache)) {
  check(model_ != nullptr, "expected a model, found none");
  check(!prompts.empty(), "expected at least one prompt, found none");
  check(processors.empty() || processors.size() == prompts.size(), "expected ", prompts.size(),
        " logits processors, one for each prompt, found ", processors.size());
  config_.check();
  seed_ = config_.seed ? *config_.seed : random_seed();
  const std::size_t longest = model_->config().max_sequence_length();
  processors.resize(prompts.size());
  sequences_.resize(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    check(!prompts[i].empty(), "prompt ", i, " is empty: expected at least one token");
    Sequence& sequence = sequences_[i];
    sequence.prompt_length = prompts[i].size();
    sequence.limit = length_limit(config_, prompts[i].size(), longest, i);
    sequence.tokens = std::move(prompts[i]);
    sequence.processor = std::move(processors[i]);
  }
  check_cache();
  is_own_cache_ = !cache_ && config_.use_cache;
  if (is_own_cache_) cache_ = model_->new_cache(sequences_.size());
}

Generation::~Generation() = default;

void Generation::check_cache() const {
  if (!cache_) return;
  check(config_.use_cache, "a cache was given although use_cache is false: leave one of them out");
  check(cache_->batch_size() == sequences_.size(), "the cache has ", cache_->batch_size(),
        " slots, but there are ", sequences_.size(), " prompts");
  for (std::size_t i = 0; i < sequences_.size(); ++i) held_by(*cache_, i, sequences_[i].tokens);
}

std::vector<Generation::Run> Generation::plan() const {
  const bool all_rows = std::any_of(sequences_.begin(), sequences_.end(), [&](const Sequence& s) {
    return s.finish_reason.empty() && wants_prompt_logprobs(s);
  });
  std::vector<Run> runs;
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    if (!sequence.finish_reason.empty()) continue;
    std::size_t begin = 0;
    if (cache_) {
      // Into our own nobody else puts anything.
      const std::size_t held =
          is_own_cache_ ? cache_->length(i) : held_by(*cache_, i, sequence.tokens);
      begin = std::min(held, sequence.tokens.size() - 1);
    }
    if (wants_prompt_logprobs(sequence)) begin = 0;
    const std::size_t end = sequence.tokens.size();
    runs.push_back({i, begin, end, all_rows ? end - begin : 1});
  }
  return runs;
}

Tensor Generation::forward(const std::vector<Run>& runs, Frontend& frontend) {
  std::vector<TokenIds> ids;
  std::vector<std::size_t> slots;
  auto wanted = LogitRows::Last;
  for (const Run& run : runs) {
    const TokenIds& all = sequences_[run.index].tokens;
    ids.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(run.begin), all.end());
    slots.push_back(cache_ ? run.index : slots.size());
    if (run.rows > 1) wanted = LogitRows::All;
  }
  const std::shared_ptr<KvCache> cache = cache_ ? cache_ : model_->new_cache(runs.size());
  return model_->forward_packed(ids, slots, cache, wanted, frontend);
}

std::unique_ptr<Generation::Asked> Generation::ask(std::vector<Run> runs, Frontend& frontend) {
  auto now = std::make_unique<Asked>();
  now->logits = forward(runs, frontend);
  now->last = last_rows(runs, now->logits);
  if (has_penalties(config_)) {
    for (const Run& run : runs) {
      Sequence& sequence = sequences_[run.index];
      sequence.used.follow(sequence.tokens, sequence.prompt_length);
    }
  }
  now->choice = choose_on_device(runs, now->last);
  now->runs = std::move(runs);
  return now;
}

void Generation::step(Frontend& frontend) {
  check<Error>(!stepping_, "step() was called from inside of a step of the same generation");
  const Scope scope(stepping_);
  const std::vector<Run> runs = plan();
  if (runs.empty()) return;
  for (const Run& run : runs) {
    if (cache_ && cache_->length(run.index) > run.begin) cache_->truncate(run.begin, run.index);
  }
  Rollback rollback(cache_.get());
  try {
    std::unique_ptr<Asked> now = take_ahead(runs);
    if (!now) now = ask(runs, frontend);
    std::unique_ptr<Asked> next = ask_ahead(*now, frontend);
    append(now->runs, choose(*now));
    if (!done()) ahead_ = std::move(next);
  } catch (const OutOfMemory&) {
    // Whoever keeps the exception may keep this, too; another step would fill it again.
    if (is_own_cache_) cache_->clear();
    throw;
  }
  rollback.keep();
}

void Generation::append(const std::vector<Run>& runs, std::vector<Next> found) {
  for (const Run& run : runs) {  // all that may fail comes first
    make_room(sequences_[run.index].tokens);
    make_room(sequences_[run.index].logprobs);
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Sequence& sequence = sequences_[runs[i].index];
    Next& next = found[i];
    if (!next.prompt_logprobs.empty()) sequence.prompt_logprobs = std::move(next.prompt_logprobs);
    if (!sequence.finish_reason.empty()) continue;  // by a callback, during the step
    sequence.tokens.push_back(next.token);
    if (config_.logprobs) sequence.logprobs.push_back(next.logprob);
    sequence.finish_reason =
        reason_to_stop(config_, next.token, sequence.tokens.size(), sequence.limit);
  }
}

bool Generation::done() const {
  return std::none_of(sequences_.begin(), sequences_.end(),
                      [](const Sequence& s) { return s.finish_reason.empty(); });
}

const Generation::Sequence& Generation::at(std::size_t i) const {
  check<IndexError>(i < sequences_.size(), "sequence ", i, " of ", sequences_.size());
  return sequences_[i];
}

std::size_t Generation::size() const { return sequences_.size(); }
const TokenIds& Generation::tokens(std::size_t i) const { return at(i).tokens; }
std::size_t Generation::prompt_length(std::size_t i) const { return at(i).prompt_length; }
const std::vector<float>& Generation::logprobs(std::size_t i) const { return at(i).logprobs; }
const std::vector<float>& Generation::prompt_logprobs(std::size_t i) const {
  return at(i).prompt_logprobs;
}
const std::string& Generation::finish_reason(std::size_t i) const { return at(i).finish_reason; }

void Generation::finish(std::size_t i, const std::string& reason) {
  check(!reason.empty(), "expected a reason to finish, found an empty text");
  if (at(i).finish_reason.empty()) sequences_[i].finish_reason = reason;
  if (done()) ahead_.reset();
}

}  // namespace infinilm
