// Apart from the rest, since <regex> is a heavy header.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // of <regex> itself, under the address sanitizer
#endif
#include <algorithm>
#include <regex>

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

std::regex compile(const std::string& field, const std::string& text) {
  check(text.size() <= kLongestExpression, quoted(field), ": expected an expression of at most ",
        kLongestExpression, " characters, found ", text.size());
  try {
    return std::regex(text, kSyntax);
  } catch (const std::regex_error& error) {
    throw ValueError(concat(quoted(field), ": expected a regular expression of ECMAScript, found ",
                            quoted(text), " (", error.what(), ")"));
  }
}

}  // namespace

ModulePattern whole_name(const std::string& field, const std::string& text) {
  if (text == "Linear") return [](const std::string&) { return true; };
  if (!text.starts_with(kExpression))
    return [=](const std::string& module) { return module == text; };
  const std::regex expression = compile(field, text.substr(kExpression.size()));
  return [=](const std::string& module) {
    return std::regex_search(module, expression, std::regex_constants::match_continuous);
  };
}

ModulePattern name_parts(const std::string& text) {
  return [=](const std::string& module) {
    return ("." + module + ".").find("." + text + ".") != std::string::npos;
  };
}

bool QuantizationScheme::covers(const std::string& module) const {
  const auto match = [&](const ModulePattern& pattern) { return pattern(module); };
  return (only.empty() || std::any_of(only.begin(), only.end(), match)) &&
         std::none_of(except.begin(), except.end(), match);
}

}  // namespace infinilm
