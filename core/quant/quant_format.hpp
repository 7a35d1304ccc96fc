// What a quantised matrix is. Plain data: the kernels read it too.
#pragma once

#include <cstdint>

namespace infinilm {

// Each row is cut into groups of `group` columns, the last of them padded. A group has one scale, a float16, and `zeros`
// says whether it has a zero of its own too; without, the zero is 2^(bits - 1).
//   value = (code - zero) * scale, 0 <= code < 2^bits
// (the affine scheme of Jacob et al. 2018, arXiv:1712.05877, eq. 1).
struct QuantFormat {
  int bits = 0;            // 4 or 8; 0: not quantised
  std::int64_t group = 0;  // a multiple of 32
  bool zeros = false;

  explicit operator bool() const noexcept { return bits != 0; }
  int middle() const noexcept { return 1 << (bits - 1); }
  friend bool operator==(const QuantFormat&, const QuantFormat&) = default;
};

// One group for a whole row of `columns`: padded to what kernels do fastest, unless that would be much.
constexpr QuantFormat by_rows(int bits, std::int64_t columns) {
  const std::int64_t multiple = columns % 128 == 0 || columns > 1024 ? 128 : 32;
  const std::int64_t groups = columns < 1 ? 1 : (columns + multiple - 1) / multiple;
  return {bits, groups * multiple, false};
}

// How many inputs share a scale, 0 if a whole row does: what `by_rows` and other formats are made from.
constexpr std::int64_t group_size(const QuantFormat& format, std::int64_t columns) {
  return format.group == by_rows(format.bits, columns).group ? 0 : format.group;
}

// Words of 32 bits that so many codes take in a checkpoint.
constexpr std::int64_t packed_words(std::int64_t codes, int bits) {
  return (codes * bits + 31) / 32;
}

constexpr std::int64_t group_count(const QuantFormat& format, std::int64_t columns) {
  return (columns + format.group - 1) / format.group;
}

}  // namespace infinilm
