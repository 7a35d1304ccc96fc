// Generation: prompts in, tokens out, one step at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infinilm/model.hpp"

namespace infinilm {

/// HF's generation settings under HF's names. An empty optional means HF's default.
struct GenerationConfig {
  std::optional<std::size_t> max_new_tokens;  ///< beats max_length
  std::optional<std::size_t> max_length;      ///< prompt and continuation
  bool do_sample = false;
  double temperature = 1.0;  ///< 0 is greedy
  std::size_t top_k = 50;    ///< 0: off
  double top_p = 1.0;        ///< (0, 1]
  double min_p = 0.0;        ///< [0, 1]
  double repetition_penalty =
      1.0;                         ///< > 0; Keskar et al. 2019 (CTRL), over prompt and continuation
  double presence_penalty = 0.0;   ///< subtracted once from every id that was generated
  double frequency_penalty = 0.0;  ///< subtracted for each time it was generated
  std::optional<std::uint64_t> seed;
  TokenIds eos_token_id;
  std::optional<std::int64_t> pad_token_id;
  TokenIds stop_token_ids;  ///< end like eos, reported as "stop"
  bool use_cache = true;
  bool logprobs = false;         ///< log-probability of every token of the continuation
  bool prompt_logprobs = false;  ///< and of the prompt

  /// Throws ValueError naming every field out of its range.
  void check() const;
  /// HF's generation_config.json; what would change the result and is not supported (num_beams = 4)
  /// is a ValueError that names it, the rest is ignored.
  static GenerationConfig from_json(const std::string& text);
  /// `directory`/generation_config.json, else what `config` gives (its eos and pad ids).
  static GenerationConfig from_pretrained(const std::string& directory, const LlamaConfig& config);
  std::string to_json() const;

  friend bool operator==(const GenerationConfig&, const GenerationConfig&) = default;
};

/// `tokens`: prompt and continuation so far; `logits`: float32 [V] of the next token, to be edited
/// in place. Runs after the penalties and before temperature, top_k, top_p and min_p, as in HF.
using LogitsProcessor = std::function<void(const TokenIds& tokens, const Tensor& logits)>;

/// A run of several prompts, which need not be of one length. Each sequence draws from its own
/// random stream (seed and index), so that it gives what it would give alone with that index. For
/// one thread at a time.
class Generation {
 public:
  /// `processors`: empty, or one for each prompt (null for none). `cache`: null, or one with a slot
  /// for each prompt, which then holds a prefix of it. What has to be run again is taken out of it
  /// by the first step: the last token if it holds all, everything for `prompt_logprobs`. ValueError
  /// for an empty prompt, for no room to generate, for a cache that holds something else or comes
  /// together with `use_cache` = false.
  Generation(std::shared_ptr<LlamaForCausalLM> model, std::vector<TokenIds> prompts,
             GenerationConfig config, std::vector<LogitsProcessor> processors,
             std::shared_ptr<KvCache> cache);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  /// Runs one forward pass and gives each unfinished sequence its next token. If it throws, no
  /// sequence has changed and it can be called again. Error (RuntimeError) if called from inside of
  /// a step.
  void step(Frontend& frontend);
  bool done() const;

  std::size_t size() const;                     ///< sequences
  const TokenIds& tokens(std::size_t i) const;  ///< prompt and continuation
  std::size_t prompt_length(std::size_t i) const;
  /// One for each token of the continuation / of the prompt (NaN for the first), natural logarithm
  /// of the model's own distribution, before penalties, processors and sampling. Empty unless asked
  /// for.
  const std::vector<float>& logprobs(std::size_t i) const;
  const std::vector<float>& prompt_logprobs(std::size_t i) const;
  /// "" while running, then "eos", "stop", "length" or what `finish` was given.
  const std::string& finish_reason(std::size_t i) const;
  /// Ends a sequence from outside (a stop string was seen); one that has ended keeps its reason.
  void finish(std::size_t i, const std::string& reason);

 private:
  struct Sequence;
  struct Run;    ///< a sequence's part in one step
  struct Asked;  ///< a step on its way
  struct Next;   ///< what the step found for a sequence
  const Sequence& at(std::size_t i) const;
  void check_cache() const;
  bool wants_prompt_logprobs(const Sequence& sequence) const;
  std::vector<Run> plan() const;
  Tensor forward(const std::vector<Run>& runs, Frontend& frontend);
  std::unique_ptr<Asked> ask(std::vector<Run> runs, Frontend& frontend);
  bool may_go_ahead(const Asked& now) const;
  std::unique_ptr<Asked> ask_ahead(const Asked& now, Frontend& frontend);
  std::unique_ptr<Asked> take_ahead(const std::vector<Run>& runs);
  std::vector<Next> choose(const Asked& now) const;
  Tensor last_rows(const std::vector<Run>& runs, const Tensor& logits) const;
  TokenIds choose_tokens(const Asked& now) const;
  std::unique_ptr<Choice> choose_on_device(const std::vector<Run>& runs, const Tensor& last) const;
  std::int64_t choose_on_host(const Run& run, std::span<const float> logits) const;
  double number_of(const Run& run) const;
  void append(const std::vector<Run>& runs, std::vector<Next> found);

  std::shared_ptr<LlamaForCausalLM> model_;
  GenerationConfig config_;
  std::uint64_t seed_ = 0;
  std::vector<Sequence> sequences_;
  std::shared_ptr<KvCache> cache_;  ///< null: every step runs whole sequences
  bool is_own_cache_ = false;       ///< nobody else has it
  std::unique_ptr<Asked> ahead_;    ///< the next step, if the device is at it already
  bool stepping_ = false;
};

}  // namespace infinilm
