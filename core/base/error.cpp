#include "infinilm/error.hpp"

#include <cstdio>
#include <string_view>

namespace infinilm {
namespace {

// Length of the well-formed UTF-8 sequence that `text` begins with, 0 if it is not one.
std::size_t utf8_length(std::string_view text) noexcept {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const bool bad = (lead == 0xE0 && at(1) < 0xA0) || (lead == 0xED && at(1) >= 0xA0) ||
                   (lead == 0xF0 && at(1) < 0x90) || (lead == 0xF4 && at(1) >= 0x90);
  return bad ? 0 : length;
}

}  // namespace

std::string quoted(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() > kLongest) return out + "…\"";
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_length(text.substr(i));
    if (c == '"' || c == '\\') {
      out.append({'\\', static_cast<char>(c)});
      ++i;
    } else if (length == 0 || c < 0x20 || c == 0x7F) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", c);
      out.append(escape);
      ++i;
    } else {
      out.append(text.substr(i, length));
      i += length;
    }
  }
  return out + "\"";
}

}  // namespace infinilm
