// When a sequence ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "infinilm/generate.hpp"

namespace infinilm {

// How long sequence `index` may become: its prompt and `max_new_tokens`, else `max_length`, else
// the prompt and HF's default of 20; never more than `longest`, the model's limit. ValueError if
// that leaves no room for a token.
std::size_t length_limit(const GenerationConfig& config, std::size_t prompt_length,
                         std::size_t longest, std::size_t index);

// "eos", "stop", "length", or "" if a sequence that is now `length` long and ends with `last` goes
// on.
std::string reason_to_stop(const GenerationConfig& config, std::int64_t last, std::size_t length,
                           std::size_t limit);

}  // namespace infinilm
