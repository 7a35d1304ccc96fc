#include "generate/used_tokens.hpp"

#include "generate/make_room.hpp"

namespace infinilm {

void UsedTokens::follow(const TokenIds& tokens, std::size_t prompt_length) {
  for (; seen_ < tokens.size(); ++seen_) {
    make_room(used_);  // first, so that both grow, or none
    const auto [place, is_new] = places_.try_emplace(tokens[seen_], used_.size());
    if (is_new) used_.push_back({tokens[seen_], 0, 0});
    if (seen_ >= prompt_length) ++used_[place->second].generated;
  }
}

}  // namespace infinilm
