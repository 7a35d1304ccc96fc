// JSON from files that nobody vouches for: nlohmann's parser behind limits of size and depth.
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace infinilm {

using Json = nlohmann::json;

struct JsonLimits {
  std::size_t max_bytes;
  std::size_t max_depth;  // of nested objects and arrays; 1 for {}
};
// Of configs, as they are read, and as they are written.
inline constexpr JsonLimits kConfigLimits{std::size_t{16} << 20, 64};
inline constexpr JsonLimits kWrittenConfigLimits{std::size_t{64} << 20, 64};

// Stricter than RFC 8259 allows a reader to be: no duplicate names, no byte order mark, no NaN, valid UTF-8.
// Throws ValueError that begins with `source` (a file name) and names the last key read.
Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits);

// The members of one large object as they are read, so that they are never all in memory at once.
using JsonMember = std::function<void(const std::string& name, Json&& value)>;
void parse_json_members(std::string_view text, const std::string& source, const JsonLimits& limits,
                        const JsonMember& on_member);

// Indented by two spaces, keys sorted (as HF writes them), with a final newline if `indent`.
// Throws ValueError for a text that is not valid UTF-8.
std::string dump_json(const Json& value, bool indent);

// A value for error messages, cut to one short line: `"64" (a string)`.
std::string describe(const Json& value);

}  // namespace infinilm
