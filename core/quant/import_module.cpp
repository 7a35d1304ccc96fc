#include "quant/import_module.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/half.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

float stored_scale(const Tensor& scales, std::int64_t index) {
  if (scales.dtype() == DataType::F32) return std::bit_cast<float>(word_at(scales, index));
  std::uint16_t bits;
  std::memcpy(&bits, scales.data() + 2 * index, sizeof bits);
  return scales.dtype() == DataType::F16 ? from_f16(bits) : from_bf16(bits);
}

std::int64_t group_at(const Tensor& g_idx, std::int64_t column) {
  return static_cast<std::int32_t>(word_at(g_idx, column));
}

}  // namespace

float scale_at(const Tensor& scales, std::int64_t index) {
  return from_f16(to_f16(stored_scale(scales, index)));
}

void check_scales(const ImportedModule& module, const std::string& part) {
  const Tensor& scales = module.at(part);
  const std::int64_t count = scales.numel();
  for (std::int64_t i = 0; i < count; ++i) {
    if (std::isfinite(scale_at(scales, i))) continue;
    throw ValueError(concat(quoted(module.name_of(part)),
                            ": expected finite scales that a float16 can hold, found ",
                            stored_scale(scales, i), " in place ", i));
  }
}

std::vector<std::int32_t> order_of(const ImportedModule& module, const std::string& part) {
  const Tensor& g_idx = module.at(part);
  const std::int64_t groups = module.groups();
  std::vector<std::int64_t> members(static_cast<std::size_t>(groups));
  for (std::int64_t k = 0; k < module.inputs; ++k) {
    const std::int64_t g = group_at(g_idx, k);
    if (g < 0 || g >= groups) {
      throw ValueError(concat(quoted(module.name_of(part)), ": expected groups from 0 to ",
                              groups - 1, ", found ", g, " in place ", k));
    }
    ++members[static_cast<std::size_t>(g)];
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t expected =
        std::min(module.format.group, module.inputs - g * module.format.group);
    const std::int64_t found = members[static_cast<std::size_t>(g)];
    check(found == expected, quoted(module.name_of(part)), ": expected ", expected,
          " columns in group ", g, ", found ", found);
  }
  std::vector<std::int32_t> order(static_cast<std::size_t>(module.inputs));
  std::iota(order.begin(), order.end(), 0);
  const auto earlier = [&](std::int32_t a, std::int32_t b) {
    return group_at(g_idx, a) < group_at(g_idx, b);
  };
  if (std::is_sorted(order.begin(), order.end(), earlier)) return {};
  std::stable_sort(order.begin(), order.end(), earlier);
  return order;
}

}  // namespace infinilm
