// How matrices lie in device memory.
//
// F32, F16, BF16: row after row, as stored, with zeros up to a multiple of 16 bytes.
//
// Quantised: tiles of 16 outputs, one after the other. A tile is a row of units of 128 columns (4 bits) or 64 (8 bits):
//   codes   [2][8][4][16 bytes]: of output 8 h + g, what lane (g, t) of a warp multiplies. With p counting runs of 32
//           columns in the unit, lane t has columns 32 p + 8 t … + 7: at 4 bits in word p, column 2 (j % 4) + j / 4 of the
//           eight in nibble j; at 8 bits in bytes 8 p … 8 p + 7
//   scales  [8][runs][2] float16: of output 8 h + g at [g][run][h]; a run is the unit if groups are of whole units, else 32
//           columns, of which four are in the order 0, 2, 1, 3
//   zeros   [8][runs][2] bytes, if the format has them
// padded to 32 bytes. So that a warp's loads are contiguous, and columns multiplied together have one scale. A row has an even number of
// units: few rows are multiplied by two of them at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_format.hpp"

#if defined(__CUDACC__)
#define INFINILM_ANYWHERE __host__ __device__
#else
#define INFINILM_ANYWHERE
#endif

namespace infinilm::cuda {

enum class Layout : int { F32, F16, Bf16, Q8, Q4 };

INFINILM_ANYWHERE constexpr bool is_quantised(Layout layout) {
  return layout == Layout::Q8 || layout == Layout::Q4;
}

inline constexpr int kTileRows = 16;

// Of quantised matrices.
struct UnitLayout {
  int columns = 0;     // of a unit
  int runs = 0;        // scales of an output in a unit
  bool zeros = false;  // else `middle` everywhere
  int middle = 0;
  int units = 0;  // of a row
  int bytes = 0;  // of a unit

  INFINILM_ANYWHERE constexpr int run_columns() const { return columns / runs; }
  INFINILM_ANYWHERE constexpr std::int64_t tile_bytes() const {
    return std::int64_t{units} * bytes;
  }
};

INFINILM_ANYWHERE constexpr int unit_columns(Layout layout) {
  return layout == Layout::Q4 ? 128 : 64;
}
INFINILM_ANYWHERE constexpr int unit_bytes(int runs, bool zeros) {
  return (1024 + runs * kTileRows * (zeros ? 3 : 2) + 31) / 32 * 32;
}

inline UnitLayout unit_layout(const QuantFormat& format, std::int64_t inputs) {
  UnitLayout l;
  l.columns = unit_columns(format.bits == 4 ? Layout::Q4 : Layout::Q8);
  l.runs = format.group % l.columns == 0 ? 1 : l.columns / 32;
  l.zeros = format.zeros;
  l.middle = format.middle();
  l.units = static_cast<int>((inputs + 2 * l.columns - 1) / (2 * l.columns) * 2);
  l.bytes = unit_bytes(l.runs, l.zeros);
  return l;
}

// Where things lie within a unit; `row` of the tile, `column` of the unit, `run` of the unit.
struct CodePlace {
  int byte;
  int shift;  // of four bits
};
INFINILM_ANYWHERE constexpr CodePlace code_place(int bits, int row, int column) {
  const int p = column / 32, t = column % 32 / 8, k = column % 8;
  const int chunk = ((row / 8 * 8 + row % 8) * 4 + t) * 16;
  if (bits == 8) return {chunk + p * 8 + k, 0};
  const int nibble = k / 2 + k % 2 * 4;
  return {chunk + p * 4 + nibble / 2, nibble % 2 * 4};
}
// Neighbours are what a lane multiplies of one row of x.
INFINILM_ANYWHERE constexpr int run_place(int runs, int run) {
  return runs == 4 ? run % 2 * 2 + run / 2 : run;
}
INFINILM_ANYWHERE constexpr int scale_place(const UnitLayout& l, int row, int run) {
  return 1024 + ((row % 8 * l.runs + run_place(l.runs, run)) * 2 + row / 8) * 2;
}
INFINILM_ANYWHERE constexpr int zero_place(const UnitLayout& l, int row, int run) {
  return 1024 + kTileRows * l.runs * 2 + (row % 8 * l.runs + run_place(l.runs, run)) * 2 + row / 8;
}

// One matrix, as kernels see it.
struct MatrixView {
  const std::byte* data = nullptr;
  std::int64_t row_bytes = 0;  // of F32, F16, BF16
  int outputs = 0;
  int inputs = 0;
  Layout layout = Layout::F32;
  UnitLayout unit;
};

}  // namespace infinilm::cuda
