// The next step, asked for before the host knows the tokens of this one, so that a device that chooses them itself need not wait for it.
// Nobody can tell from the result: what the host then decides otherwise (a sequence has ended, a hook was set) drops the step, or its
// part of it.
#include <algorithm>

#include "generate/sampler.hpp"
#include "generate/sequence.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// Where a token may end everything, the step after it is in vain. After so many it is likely that more will come, and such a step is
// a small part of all.
constexpr std::size_t kTokensBefore = 64;

}  // namespace

// Whether a step after `now` would go on with all its sequences, but for what the tokens of now may end, and does not depend on
// these otherwise.
bool Generation::may_go_ahead(const Asked& now) const {
  if (!now.choice || !cache_ || config_.logprobs || has_penalties(config_)) return false;
  std::size_t generated = 0;
  for (const Run& run : now.runs) {
    const Sequence& sequence = sequences_[run.index];
    if (!sequence.finish_reason.empty() || run.end + 1 >= sequence.limit) return false;
    generated = std::max(generated, run.end - sequence.prompt_length);
  }
  const bool may_end = !config_.eos_token_id.empty() || !config_.stop_token_ids.empty();
  return !may_end || generated >= kTokensBefore;
}

// Null if it cannot be asked for.
std::unique_ptr<Generation::Asked> Generation::ask_ahead(const Asked& now, Frontend& frontend) {
  if (!may_go_ahead(now)) return nullptr;
  auto ahead = std::make_unique<Asked>();
  std::vector<std::size_t> slots;
  for (const Run& run : now.runs) {
    slots.push_back(run.index);
    ahead->runs.push_back({run.index, run.end, run.end + 1, 1});
  }
  ahead->pass = model_->forward_ahead(slots, cache_, *now.choice, frontend);
  if (!ahead->pass) return nullptr;
  ahead->logits = ahead->last = ahead->pass->logits;
  try {
    ahead->choice = choose_on_device(ahead->runs, ahead->last);
  } catch (const OutOfMemory&) {
    return nullptr;  // whoever needs the step will hear of it
  }
  return ahead;
}

// The step that was asked for ahead, if it is one of these runs.
std::unique_ptr<Generation::Asked> Generation::take_ahead(const std::vector<Run>& runs) {
  std::unique_ptr<Asked> ahead = std::move(ahead_);
  if (!ahead) return nullptr;
  std::vector<std::size_t> slots;
  TokenIds ids;
  for (const Run& run : runs) {
    if (run.begin + 1 != run.end) return nullptr;  // another thread has cut the cache
    slots.push_back(run.index);
    ids.push_back(sequences_[run.index].tokens.back());
  }
  if (!model_->complete(*ahead->pass, slots, ids)) return nullptr;
  ahead->pass.reset();
  return ahead;
}

}  // namespace infinilm
