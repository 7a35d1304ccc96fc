#include <algorithm>

#include "config/quantization_config.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::string_view kExpression = "re:";
// A hostile expression must not take forever on a name: libstdc++ can do without going back.
#ifdef __GLIBCXX__
constexpr auto kSyntax = std::regex::ECMAScript | std::regex_constants::__polynomial;
#else
constexpr auto kSyntax = std::regex::ECMAScript;
#endif
// Of an expression that a file asks to be compiled.
constexpr std::size_t kLongestExpression = 512;

}  // namespace

ModulePattern ModulePattern::whole(const std::string& field, const std::string& text) {
  if (text == "Linear") return {Kind::Every, text};
  if (!text.starts_with(kExpression)) return {Kind::Whole, text};
  ModulePattern pattern(Kind::Expression, text.substr(kExpression.size()));
  check(text.size() <= kLongestExpression, quoted(field), ": expected an expression of at most ",
        kLongestExpression, " characters, found ", text.size());
  try {
    pattern.expression_ = std::regex(pattern.text_, kSyntax);
  } catch (const std::regex_error& error) {
    throw ValueError(concat(quoted(field), ": expected a regular expression of ECMAScript, found ",
                            quoted(text), " (", error.what(), ")"));
  }
  return pattern;
}

ModulePattern ModulePattern::parts(const std::string& text) { return {Kind::Parts, text}; }

bool ModulePattern::matches(const std::string& module) const {
  switch (kind_) {
    case Kind::Every:
      return true;
    case Kind::Whole:
      return module == text_;
    case Kind::Parts:
      return ("." + module + ".").find("." + text_ + ".") != std::string::npos;
    case Kind::Expression:
      return std::regex_search(module, expression_, std::regex_constants::match_continuous);
  }
  return false;
}

bool QuantizationScheme::covers(const std::string& module) const {
  const auto match = [&](const ModulePattern& pattern) { return pattern.matches(module); };
  return (only.empty() || std::any_of(only.begin(), only.end(), match)) &&
         std::none_of(except.begin(), except.end(), match);
}

}  // namespace infinilm
