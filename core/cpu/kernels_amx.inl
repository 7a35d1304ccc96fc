// Products of bfloat16 by the matrix unit (AMX): tiles of 16 rows x 32 of K, 32 of K x 16 outputs, 16 x 16 sums.
//
//                      32 outputs: two tiles      A strip is up to 32 rows, two tiles high; each tile of x and of the
//                    +--------+--------+          panel that is loaded is used twice. Up to 16 rows: one tile high,
//      x: 32 of K >  | B0     | B1     |          four outputs' tiles wide.
//   +------------+   +--------+--------+
//   | A0 16 rows |   | 16x16  | 16x16  |          Packed rows: for each strip, for each 32 of K, [rows][32] bfloat16.
//   | A1 16 rows |   | 16x16  | 16x16  |          The panel's own layout [K/2][kNr][2] is what the unit wants.
//   +------------+   +--------+--------+
//
// The unit adds the products of 16 pairs to each sum at a time, in order of K, whatever the number of rows is:
// a row gives the same bits alone and in a batch. Denormals count as zero.
#pragma once

#include "cpu/kernels_base.inl"
#include "cpu/kernels_quant.inl"

namespace infinilm::cpu::INFINILM_ISA {

constexpr int kTileRows = 16;
constexpr int kTileDepth = 32;      // of K, in bfloat16
constexpr i64 kPanelRow = kNr * 4;  // bytes of a pair of K of all outputs of a panel
// K that is multiplied before the next outputs: a strip's and two tiles' share of it lie in L1.
constexpr i64 kTileBlock = 512;

// What ldtilecfg reads.
struct alignas(64) TileShapes {
  unsigned char palette = 1;
  unsigned char start_row = 0;
  unsigned char reserved[14] = {};
  u16 row_bytes[16] = {};
  unsigned char rows[16] = {};

  void set(int tile, i64 row_count) {
    row_bytes[tile] = 64;
    rows[tile] = static_cast<unsigned char>(row_count);
  }
};

// The shapes for a strip of `rows` rows. Tiles: sums 0-3, x 4 and 5, outputs 6 and 7; with one tile of rows, outputs 5, 6, 7.
inline void configure(i64 rows) {
  const i64 top = smaller(rows, kTileRows);
  const i64 bottom = rows - top;
  TileShapes shapes;
  shapes.set(0, top);
  shapes.set(1, top);
  shapes.set(2, bottom ? bottom : top);
  shapes.set(3, bottom ? bottom : top);
  shapes.set(4, top);
  shapes.set(5, bottom ? bottom : kTileRows);
  shapes.set(6, kTileRows);
  shapes.set(7, kTileRows);
  // gcc's intrinsic names only the first bytes as read.
  asm volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

// The sums of tiles 0-3 from and to memory, rows kPanelRow bytes apart.
inline void begin_sums(bool first, const float* c0, const float* c1, const float* c2,
                       const float* c3) {
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, c0, kPanelRow);
  _tile_loadd(1, c1, kPanelRow);
  _tile_loadd(2, c2, kPanelRow);
  _tile_loadd(3, c3, kPanelRow);
}
inline void end_sums(float* c0, float* c1, float* c2, float* c3) {
  _tile_stored(0, c0, kPanelRow);
  _tile_stored(1, c1, kPanelRow);
  _tile_stored(2, c2, kPanelRow);
  _tile_stored(3, c3, kPanelRow);
}

// One strip of more than 16 rows by 32 outputs. `a`: the strip's packed rows from the block of K on.
inline void multiply_tall(const std::byte* a, i64 rows, const std::byte* b, i64 steps, float* c,
                          bool first) {
  float* below = c + kTileRows * kNr;
  begin_sums(first, c, c + 16, below, below + 16);
  for (i64 step = 0; step < steps; ++step) {
    _tile_loadd(6, b, kPanelRow);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + kTileRows * 64, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, b + 64, kPanelRow);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    a += rows * 64;
    b += kTileRows * kPanelRow;
  }
  end_sums(c, c + 16, below, below + 16);
}

// One strip of up to 16 rows by all outputs of a panel.
template <bool kAhead>
inline void multiply_flat(const std::byte* a, i64 rows, const std::byte* b, i64 steps, float* c,
                          bool first) {
  begin_sums(first, c, c + 16, c + 32, c + 48);
  for (i64 step = 0; step < steps; ++step) {
    if constexpr (kAhead) {
      constexpr i64 kTilesAhead = 4096;
      for (i64 line = 0; line < kTileRows * kPanelRow; line += 64)
        __builtin_prefetch(b + kTilesAhead + line, 0, 3);
    }
    _tile_loadd(4, a, 64);
    _tile_loadd(5, b, kPanelRow);
    _tile_loadd(6, b + 64, kPanelRow);
    _tile_loadd(7, b + 128, kPanelRow);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, b + 192, kPanelRow);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 4, 5);
    a += rows * 64;
    b += kTileRows * kPanelRow;
  }
  end_sums(c, c + 16, c + 32, c + 48);
}

// The rows of one strip by one panel; K from k0 on, where `b` begins.
inline void tile_strip(const std::byte* a, i64 rows, const std::byte* b, i64 k0, i64 depth,
                       float* c) {
  const i64 steps = depth / kTileDepth;
  const bool first = k0 == 0;
  a += k0 * rows * 2;
  if (rows <= kTileRows) return multiply_flat<true>(a, rows, b, steps, c, first);
  multiply_tall(a, rows, b, steps, c, first);
  multiply_tall(a, rows, b + 128, steps, c + 32, first);
}

// The strips of a task, see GemmTask: panels of bfloat16, rows packed for tiles.
void gemm_tiles(const GemmTask& t) {
  const i64 all = padded(t.depth);
  const i64 first_row = strip_row(t.rows, t.strip_begin, kRoundedStrip);
  const i64 chunk = strip_row(t.rows, t.strip_end, kRoundedStrip) - first_row;
  const bool quantised = t.format == Format::Quantised;
  const i64 block = t.strip_end - t.strip_begin == 1 && !quantised ? all : kTileBlock;
  alignas(64) u32 rounded[kTileBlock / 2 * kNr];
  i64 configured = 0;
  for (int p = 0; p < t.panel_count; ++p) {
    for (i64 k0 = 0; k0 < all; k0 += block) {
      const i64 depth = smaller(block, all - k0);
      const std::byte* b = t.panels[p] + k0 / 2 * kPanelRow;
      if (quantised) {
        round_quantised(t.panels[p], t.quant, k0, depth, rounded);
        b = reinterpret_cast<const std::byte*>(rounded);
      }
      for (i64 strip = t.strip_begin; strip < t.strip_end; ++strip) {
        const i64 row = strip_row(t.rows, strip, kRoundedStrip);
        const i64 rows = strip_row(t.rows, strip + 1, kRoundedStrip) - row;
        if (rows != configured) configure(configured = rows);
        const std::byte* a = static_cast<const std::byte*>(t.a) + row * all * 2;
        tile_strip(a, rows, b, k0, depth, t.out + (p * chunk + row - first_row) * kNr);
      }
    }
  }
  _tile_release();
}

}  // namespace infinilm::cpu::INFINILM_ISA
