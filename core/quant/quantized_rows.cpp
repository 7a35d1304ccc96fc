#include "quant/quantized_rows.hpp"

#include <algorithm>

#include "infinilm/error.hpp"

namespace infinilm {

std::span<const std::int32_t> common_order(std::span<const QuantizedRows* const> parts) {
  const std::span<const std::int32_t> order = parts.front()->input_order();
  for (const QuantizedRows* part : parts) {
    check(std::ranges::equal(part->input_order(), order),
          "expected matrices that share their input in one order of its columns, found several");
  }
  return order;
}

}  // namespace infinilm
