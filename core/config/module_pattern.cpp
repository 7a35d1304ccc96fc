#include <algorithm>

#include "config/quantization_config.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::string_view kExpression = "re:";
// Of an expression that a file asks to be compiled.
constexpr std::size_t kLongestExpression = 512;

}  // namespace

ModulePattern ModulePattern::whole(const std::string& field, const std::string& text) {
  if (text == kLinear || text == kEmbedding) return {Kind::Class, text};
  if (!text.starts_with(kExpression)) return {Kind::Whole, text};
  ModulePattern pattern(Kind::Expression, text.substr(kExpression.size()));
  check(text.size() <= kLongestExpression, quoted(field), ": expected an expression of at most ",
        kLongestExpression, " characters, found ", text.size());
  try {
    pattern.expression_ = std::regex(pattern.text_);
  } catch (const std::regex_error& error) {
    throw ValueError(concat(quoted(field), ": expected a regular expression of ECMAScript, found ",
                            quoted(text), " (", error.what(), ")"));
  }
  return pattern;
}

ModulePattern ModulePattern::parts(const std::string& text) { return {Kind::Parts, text}; }

bool ModulePattern::matches(const std::string& module, const std::string& type) const {
  switch (kind_) {
    case Kind::Class:
      return type == text_;
    case Kind::Whole:
      return module == text_;
    case Kind::Parts:
      return ("." + module + ".").find("." + text_ + ".") != std::string::npos;
    case Kind::Expression:
      return std::regex_search(module, expression_, std::regex_constants::match_continuous);
  }
  return false;
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
