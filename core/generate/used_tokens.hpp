// The tokens of a sequence, each once, for penalties: kept up to date instead of counted in every step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "infinilm/generate.hpp"
#include "ops/sampling.hpp"

namespace infinilm {

class UsedTokens {
 public:
  // Counts what `tokens`, which only ever grow, have had added since the last call.
  void follow(const TokenIds& tokens, std::size_t prompt_length);
  // In the order in which they first came; of row 0.
  std::span<const UsedToken> all() const noexcept { return used_; }

 private:
  std::vector<UsedToken> used_;
  std::unordered_map<std::int64_t, std::size_t> places_;  // in used_
  std::size_t seen_ = 0;
};

}  // namespace infinilm
