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

ModulePattern ModulePattern::whole(const std::string& field, const std::string& text) {
  if (text == kLinear || text == kEmbedding) {
    return {true, [=](const std::string&, const std::string& type) { return type == text; }};
  }
  if (!text.starts_with(kExpression)) {
    return {false, [=](const std::string& module, const std::string&) { return module == text; }};
  }
  const std::regex expression = compile(field, text.substr(kExpression.size()));
  return {false, [=](const std::string& module, const std::string&) {
            return std::regex_search(module, expression, std::regex_constants::match_continuous);
          }};
}

ModulePattern ModulePattern::parts(const std::string& text) {
  return {false, [=](const std::string& module, const std::string&) {
            return ("." + module + ".").find("." + text + ".") != std::string::npos;
          }};
}

const QuantizationScheme* find_scheme(const std::vector<QuantizationScheme>& schemes,
                                      const std::string& module, const std::string& type) {
  const auto match = [&](const ModulePattern& pattern) { return pattern.matches(module, type); };
  const auto named = [&](const QuantizationScheme& s) {
    return std::any_of(s.only.begin(), s.only.end(),
                       [&](const ModulePattern& p) { return !p.is_class() && match(p); });
  };
  const auto meant = [&](const QuantizationScheme& s) {
    if (s.only.empty()) return type == kLinear;
    return std::any_of(s.only.begin(), s.only.end(), match);
  };
  auto found = std::find_if(schemes.begin(), schemes.end(), named);
  if (found == schemes.end()) found = std::find_if(schemes.begin(), schemes.end(), meant);
  if (found == schemes.end()) return nullptr;
  const bool excepted = std::any_of(found->except.begin(), found->except.end(), match);
  return excepted ? nullptr : &*found;
}

}  // namespace infinilm
