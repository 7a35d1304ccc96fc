#include "cpu/settings.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "cpu/pool.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cpu {

int configured_threads() {
  const char* text = std::getenv("INFINILM_NUM_THREADS");
  if (text == nullptr || *text == '\0') return default_threads();
  const std::string_view view = text;
  int count = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), count);
  check(error == std::errc() && end == view.data() + view.size() && count >= 1 &&
            count <= kMaxThreads,
        "INFINILM_NUM_THREADS: expected a number from 1 to ", kMaxThreads, ", found ",
        quoted(view));
  return count;
}

std::string configured_level(const std::vector<std::string>& available) {
  const char* text = std::getenv("INFINILM_CPU");
  if (text == nullptr || *text == '\0') return available.back();
  std::string list;
  for (const std::string& level : available) {
    if (level == text) return level;
    list += (list.empty() ? "" : ", ") + level;
  }
  throw ValueError(concat("INFINILM_CPU: expected an instruction set of this machine (", list,
                          "), found ", quoted(std::string_view(text))));
}

}  // namespace infinilm::cpu
