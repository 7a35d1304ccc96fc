#include "base/nearest.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// Levenshtein's distance, in one row of the table.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                          std::size_t count) {
  constexpr std::size_t kLongest = 200;  // names are short; a longer text is no typing error
  name = name.substr(0, kLongest);
  std::vector<std::pair<std::size_t, const std::string*>> ranked;
  for (const std::string& candidate : candidates) {
    ranked.emplace_back(edit_distance(name, candidate), &candidate);
  }
  count = std::min(count, ranked.size());
  const auto nearer = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::stable_sort(ranked.begin(), ranked.end(), nearer);
  std::string text;
  for (std::size_t i = 0; i < count; ++i)
    text.append(i ? ", " : "").append(quoted(*ranked[i].second));
  return text;
}

}  // namespace infinilm
