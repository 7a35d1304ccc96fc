// Quantised rows into panels and back, one row at a time. The layout is told in kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/kernels.hpp"

namespace infinilm::cpu {

// One row, as QuantizedRows::read gives it. `zeros` is empty if the format has none.
struct QuantisedRow {
  std::span<std::uint8_t> codes;
  std::span<float> scales;
  std::span<std::uint8_t> zeros;
};

// Output n of a panel of `nr`.
void write_row(std::byte* panel, const QuantFormat& format, int nr, int n, const QuantisedRow& row);
void read_row(const std::byte* panel, const QuantFormat& format, int nr, int n,
              const QuantisedRow& row);

}  // namespace infinilm::cpu
