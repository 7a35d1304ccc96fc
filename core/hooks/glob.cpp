#include <string>
#include <vector>

#include "infinilm/hooks.hpp"

namespace infinilm {
namespace {

// A glob as a chain of items, each of which takes one character (or, if `repeats`, any number of them).
struct Item {
  enum class Kind { Char, Any, Digit, Class } kind = Kind::Any;
  bool repeats = false;
  std::string_view text;  // the character, or what stands between the brackets
};

// The `]` that closes the class opened at pattern[at], npos if there is none: then `[` stands for itself, as in Python's
// fnmatch. A `]` in first place is a member.
std::size_t class_end(std::string_view pattern, std::size_t at) {
  const std::size_t first = at + 1 < pattern.size() && pattern[at + 1] == '!' ? at + 2 : at + 1;
  return pattern.find(']', first + 1);
}

std::vector<Item> parse(std::string_view pattern) {
  std::vector<Item> items;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view here = pattern.substr(i, 1);
    if (here == "*") {
      items.push_back({Item::Kind::Any, true, here});
    } else if (here == "?") {
      items.push_back({Item::Kind::Any, false, here});
    } else if (here == "#") {
      items.push_back({Item::Kind::Digit, false, here});
      items.push_back({Item::Kind::Digit, true, here});
    } else if (const std::size_t end = here == "[" ? class_end(pattern, i) : std::string_view::npos;
               end != std::string_view::npos) {
      items.push_back({Item::Kind::Class, false, pattern.substr(i + 1, end - i - 1)});
      i = end;
    } else {
      items.push_back({Item::Kind::Char, false, here});
    }
  }
  return items;
}

bool in_class(std::string_view members, char c) {
  const bool negated = members.front() == '!';
  if (negated) members.remove_prefix(1);
  bool found = false;
  for (std::size_t i = 0; i < members.size();) {
    const bool range = i + 2 < members.size() && members[i + 1] == '-';
    found = found || (range ? members[i] <= c && c <= members[i + 2] : members[i] == c);
    i += range ? 3 : 1;
  }
  return found != negated;
}

bool takes(const Item& item, char c) {
  switch (item.kind) {
    case Item::Kind::Char:
      return item.text.front() == c;
    case Item::Kind::Any:
      return true;
    case Item::Kind::Digit:
      return c >= '0' && c <= '9';
    case Item::Kind::Class:
      return in_class(item.text, c);
  }
  return false;
}

// Adds `state` and what can be reached from it by skipping items that repeat.
void enter(std::vector<bool>& states, const std::vector<Item>& items, std::size_t state) {
  states[state] = true;
  while (state < items.size() && items[state].repeats) states[++state] = true;
}

}  // namespace

bool is_glob(std::string_view name) noexcept {
  return name.find_first_of("*?[#") != std::string_view::npos;
}

// All ways to match advance together, a character at a time: no pattern can make it slow.
bool glob_match(std::string_view pattern, std::string_view name) {
  const std::vector<Item> items = parse(pattern);
  std::vector<bool> states(items.size() + 1);
  enter(states, items, 0);
  for (const char c : name) {
    std::vector<bool> next(items.size() + 1);
    for (std::size_t s = 0; s < items.size(); ++s) {
      if (states[s] && takes(items[s], c)) enter(next, items, items[s].repeats ? s : s + 1);
    }
    states = std::move(next);
  }
  return states.back();
}

}  // namespace infinilm
