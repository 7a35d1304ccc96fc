// What a generation keeps of each sequence, and what a step is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "generate/used_tokens.hpp"
#include "infinilm/generate.hpp"
#include "model/pass_ahead.hpp"
#include "ops/choice.hpp"

namespace infinilm {

struct Generation::Sequence {
  TokenIds tokens;  // prompt and continuation
  std::size_t prompt_length = 0;
  std::size_t limit = 0;  // how long it may become
  LogitsProcessor processor;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;
  std::string finish_reason;
  UsedTokens used;  // for penalties; follows `tokens` where there are any
};

struct Generation::Run {
  std::size_t index = 0;  // of the sequence, and of its slot in the cache
  std::size_t begin = 0;  // the first token to run; those before are in the cache
  std::size_t end = 0;    // and the one behind the last: where the next token comes
  std::size_t rows = 0;   // of logits
};

// A step that was asked for.
struct Generation::Asked {
  std::vector<Run> runs;
  Tensor logits;                    // all rows of the runs
  Tensor last;                      // [runs, V]: those that the next tokens come from
  std::unique_ptr<Choice> choice;   // null if they are chosen on the host
  std::unique_ptr<PassAhead> pass;  // of a step that was asked for before its tokens were known
};

struct Generation::Next {
  std::int64_t token = 0;
  float logprob = 0;
  std::vector<float> prompt_logprobs;
};

}  // namespace infinilm
