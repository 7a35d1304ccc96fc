// "Did you mean": the names most like one that was not found.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace infinilm {

// The `count` candidates of the smallest edit distance to `name`, nearest first, each in double quotes and separated by ", ".
std::string nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                          std::size_t count = 3);

}  // namespace infinilm
