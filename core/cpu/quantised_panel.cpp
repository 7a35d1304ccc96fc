#include "cpu/quantised_panel.hpp"

#include <algorithm>
#include <cstring>

#include "base/half.hpp"

namespace infinilm::cpu {
namespace {

// Where output n's part of a group lies.
struct Place {
  std::size_t scale, zero, codes;
};

Place place_of(const QuantFormat& f, int nr, int n, std::size_t group) {
  const std::size_t begin = group * static_cast<std::size_t>(group_bytes(f, nr));
  const auto outputs = static_cast<std::size_t>(nr), output = static_cast<std::size_t>(n);
  const std::size_t zeros = begin + outputs * 2;
  return {begin + output * 2, zeros + output, zeros + (f.zeros ? outputs : 0)};
}

// Eight codes in the bytes of one or two lanes.
struct Eight {
  std::uint8_t bytes[8];
};

Eight join(const QuantFormat& f, const std::uint8_t* codes) {
  Eight e{};
  std::memcpy(e.bytes, codes, 8);
  if (f.bits == 8) return e;
  for (int i = 0; i < 4; ++i) e.bytes[i] = static_cast<std::uint8_t>(codes[i] | codes[i + 4] << 4);
  return e;
}

std::uint8_t code_of(const QuantFormat& f, const Eight& e, std::size_t i) {
  if (f.bits == 8) return e.bytes[i];
  return static_cast<std::uint8_t>(e.bytes[i % 4] >> (i / 4 * 4) & 15);
}

// visit(byte offset of a lane, its four bytes in `Eight`) for the lanes of column k, an eighth one, of a group.
template <class Visit>
void for_lanes(const QuantFormat& f, int nr, int n, std::size_t codes, std::size_t k, Visit visit) {
  const auto outputs = static_cast<std::size_t>(nr), output = static_cast<std::size_t>(n);
  const std::size_t lanes = f.bits == 8 ? 2 : 1;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    visit(codes + ((k / 8 * lanes + lane) * outputs + output) * 4, lane * 4);
  }
}

}  // namespace

void write_row(std::byte* panel, const QuantFormat& f, int nr, int n, const QuantisedRow& row) {
  for (std::size_t g = 0; g < row.scales.size(); ++g) {
    const Place at = place_of(f, nr, n, g);
    const std::uint16_t scale = to_f16(row.scales[g]);
    std::memcpy(panel + at.scale, &scale, sizeof scale);
    const std::uint8_t zero = f.zeros ? row.zeros[g] : static_cast<std::uint8_t>(f.middle());
    if (f.zeros) panel[at.zero] = static_cast<std::byte>(zero);
    for (std::size_t k = 0; k < static_cast<std::size_t>(f.group); k += 8) {
      const std::size_t column = g * static_cast<std::size_t>(f.group) + k;
      std::uint8_t codes[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
      if (column + 8 <= row.codes.size()) {
        std::memcpy(codes, row.codes.data() + column, 8);
      } else if (column < row.codes.size()) {
        std::memcpy(codes, row.codes.data() + column, row.codes.size() - column);
      }
      const Eight eight = join(f, codes);
      for_lanes(f, nr, n, at.codes, k, [&](std::size_t offset, std::size_t byte) {
        std::memcpy(panel + offset, eight.bytes + byte, 4);
      });
    }
  }
}

void read_row(const std::byte* panel, const QuantFormat& f, int nr, int n,
              const QuantisedRow& row) {
  for (std::size_t g = 0; g < row.scales.size(); ++g) {
    const Place at = place_of(f, nr, n, g);
    std::uint16_t scale;
    std::memcpy(&scale, panel + at.scale, sizeof scale);
    row.scales[g] = from_f16(scale);
    if (f.zeros) row.zeros[g] = static_cast<std::uint8_t>(panel[at.zero]);
    const std::size_t begin = g * static_cast<std::size_t>(f.group);
    const std::size_t end = std::min(begin + static_cast<std::size_t>(f.group), row.codes.size());
    for (std::size_t column = begin; column < end; column += 8) {
      Eight eight{};
      for_lanes(f, nr, n, at.codes, column - begin, [&](std::size_t offset, std::size_t byte) {
        std::memcpy(eight.bytes + byte, panel + offset, 4);
      });
      for (std::size_t i = 0; i < 8 && column + i < end; ++i) {
        row.codes[column + i] = code_of(f, eight, i);
      }
    }
  }
}

}  // namespace infinilm::cpu
