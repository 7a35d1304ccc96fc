// The table of kernels: one per instruction set, all compiled from kernels.inl.
//
// Only plain data crosses this border. The files that fill the tables are compiled for processors which the machine
// may not be, so they include nothing of the standard library but the integer types (an inline function
// of it, compiled there, could be the copy that the linker keeps for everybody).
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_format.hpp"

namespace infinilm::cpu {

// How the elements of a packed matrix are kept. Panels of `nr` outputs follow one another, outputs padded with zeros:
//   F32, F16: [K][nr]
//   Bf16:     [K/2][nr][2], K padded to depth_step: one 32-bit lane holds two neighbours in K, so that widening is a shift
//             or a mask, and vdpbf16ps takes it as it is.
//   Quantised: group after group, each
//             scales [nr] float16 | zeros [nr] u8, if there are any | codes, an 8-bit one [group/4][nr][4], a 4-bit one
//             [group/8][nr] of 32 bits: byte i holds code i of the eight in its low half and code i + 4 in its high half.
//             Four neighbours in K in the bytes of a lane are what vpdpbusd takes.
enum class Format : int { F32, F16, Bf16, Quantised };

// How keys and values are kept. Int8: symmetric, one float32 scale for each token of each head.
enum class KvFormat : int { F32, Bf16, Int8 };

// Activation functions; the order is that of infinilm::HiddenAct.
enum class Act : int { Silu, Gelu, GeluTanh, Relu };

inline constexpr int kMaxStrip = 6;    // rows of a register tile
inline constexpr int kMaxPanels = 4;   // panels that one task multiplies
inline constexpr int kChunkRows = 96;  // rows that one task multiplies: a multiple of every strip
inline constexpr int kTileFloats = 12288;  // panels_per_task * kChunkRows * nr fits in
inline constexpr int kKeys = 64;           // tokens in a block of the cache

// `rows` rows are cut into strips of at most `size` rows, as equal as can be.
constexpr std::int64_t strip_count(std::int64_t rows, int size = kMaxStrip) {
  return (rows + size - 1) / size;
}
constexpr std::int64_t strip_row(std::int64_t rows, std::int64_t strip, int size = kMaxStrip) {
  return rows * strip / strip_count(rows, size);
}

// K as it is kept: a multiple of `step`, zeros at the end.
constexpr std::int64_t padded_depth(std::int64_t depth, int step) {
  return (depth + step - 1) / step * step;
}

// A panel of quantised weights, in bytes.
constexpr std::int64_t group_bytes(const QuantFormat& format, int nr) {
  return nr * (2 + (format.zeros ? 1 : 0)) + format.group * nr * format.bits / 8;
}
constexpr std::int64_t quantised_panel_bytes(const QuantFormat& format, std::int64_t depth,
                                             int nr) {
  return group_count(format, depth) * group_bytes(format, nr);
}

// Rows of x as integers: for each run of `run` columns, for each row, `planes` signed bytes of every value, most significant
// plane first, [planes][run], and a RunScale. value = scale * (sum of plane p * 256^(planes - 1 - p)).
struct RunScale {
  float scale;
  std::int32_t low;   // sum over the run of the last two planes (of the one) together
  std::int32_t high;  // of the first of three planes
};
// Columns that share a scale of x: a power of two within a group of weights, small enough for 32-bit sums.
constexpr std::int64_t integer_run(const QuantFormat& format) {
  return format.group % 128 == 0 ? 128 : 32;
}
constexpr std::int64_t integer_run_bytes(const QuantFormat& format, int planes) {
  return planes * integer_run(format) + 16;
}

// x [rows, depth] as the tiles read it: for each block of K, for each strip of rows, [K][rows of the strip]. In other
// ways where the instruction set wants pairs or tiles of bfloat16; always padded_depth * 4 bytes a row or fewer.
struct PackRows {
  const float* x = nullptr;
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  std::int64_t depth = 0;
  bool round_bf16 = false;  // to bfloat16, nearest even
  int planes = 0;           // otherwise than 0: as integers, see RunScale
  QuantFormat quant;        // of the weights, then
  std::int64_t strip_begin = 0;
  std::int64_t strip_end = 0;
  void* out = nullptr;
};

// out[p][r][n] = sum over k of x[r][k] * panels[p][k][n] for the rows of some strips.
struct GemmTask {
  const void* a = nullptr;  // packed rows
  std::int64_t rows = 0;    // as in PackRows
  std::int64_t depth = 0;
  Format format = Format::F32;
  QuantFormat quant;  // of Format::Quantised
  bool round_bf16 = false;
  int planes = 0;  // as in PackRows
  std::int64_t strip_begin = 0;
  std::int64_t strip_end = 0;
  const std::byte* panels[kMaxPanels] = {};
  int panel_count = 0;
  float* out = nullptr;  // 64-byte aligned; panel after panel
};

// What becomes of a product tile [rows, nr], of which `cols` columns count.
struct StoreTile {
  const float* tile = nullptr;
  const float* tile_up = nullptr;  // store_act_mul: the tile above is the gate's
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const float* bias = nullptr;  // of these columns, or null
  const float* bias_up = nullptr;
  float* y = nullptr;
  std::int64_t stride = 0;
  const float* residual = nullptr;  // is added to y, and may be y
  std::int64_t residual_stride = 0;
  Act act = Act::Silu;
};

// Rows [begin, end) of a matrix [*, cols] elements of `format` (bf16 wanted: Format::Bf16 from any source).
struct PackPanel {
  const std::byte* source = nullptr;  // row-major, contiguous, any alignment
  Format source_format = Format::F32;
  Format format = Format::F32;
  std::int64_t rows = 0;  // of this panel, at most nr
  std::int64_t depth = 0;
  std::byte* panel = nullptr;
};

// Elements from one token's values to the next, so that whole vectors can be read and written.
constexpr std::int64_t value_stride(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// A head's part of a cache block: keys [D][64], and elsewhere in the block values [64][value_stride(D)]; for Int8 either is
// followed by the scales of its 64 tokens.
constexpr std::int64_t kv_bytes(KvFormat format, std::int64_t elements) {
  return format == KvFormat::F32    ? elements * 4
         : format == KvFormat::Bf16 ? elements * 2
                                    : elements + kKeys * 4;
}
constexpr std::int64_t key_bytes(KvFormat format, std::int64_t head_dim) {
  return kv_bytes(format, head_dim * kKeys);
}
constexpr std::int64_t value_bytes(KvFormat format, std::int64_t head_dim) {
  return kv_bytes(format, value_stride(head_dim) * kKeys);
}

// Tokens of one head on their way into one block: k and v [tokens, D], as the block's tokens [first, first + tokens).
struct KvWrite {
  const float* k = nullptr;
  const float* v = nullptr;
  std::int64_t k_stride = 0;
  std::int64_t v_stride = 0;
  std::int64_t first = 0;
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  KvFormat format = KvFormat::F32;
  std::byte* keys = nullptr;  // of this head
  std::byte* values = nullptr;
};

// Online softmax of some query rows over a run of blocks. Row i of the tile is query token i / group, query head
// i % group of the key head; it stands at position `position + i / group`.
struct AttendTask {
  const float* packed_q = nullptr;  // strips of [D][rows of the strip]
  std::int64_t rows = 0;
  std::int64_t group = 1;
  std::int64_t head_dim = 0;
  std::int64_t position = 0;
  std::int64_t window = 0;
  float scale = 1.0f;
  const std::byte* const* blocks = nullptr;
  KvFormat format = KvFormat::F32;
  std::size_t k_offset = 0;  // of this layer's and head's keys within a block
  std::size_t v_offset = 0;  // of its values
  std::int64_t block_begin = 0;
  std::int64_t block_end = 0;
  float* wide = nullptr;    // room for one head's keys and values of a block in float32
  float* peak = nullptr;    // [rows]: largest score
  float* total = nullptr;   // [rows]: sum of exp(score - peak)
  float* values = nullptr;  // [rows][value_stride(D)]: sum of exp(score - peak) * v
};

// Floats of AttendTask::wide.
constexpr std::int64_t wide_floats(std::int64_t head_dim) {
  return (head_dim + value_stride(head_dim)) * kKeys;
}

// A loop that does nothing but multiply and add, in one number format.
struct PeakLoop {
  const char* instruction = nullptr;  // null: the instruction set has none
  void (*run)(std::int64_t rounds) noexcept = nullptr;
  std::int64_t operations = 0;  // of a round; a multiplication and an addition count as two
};

// What the instruction set can do at best, see ceilings.inl.
struct Limits {
  void (*read)(const std::byte* begin, std::int64_t bytes) noexcept = nullptr;
  PeakLoop f32, bf16, tiles_bf16, int8, tiles_int8;
};

struct Kernels {
  const char* name = nullptr;
  int nr = 0;               // outputs in a panel
  int panels_per_task = 0;  // at most kMaxPanels
  int depth_step =
      0;  // what K is padded to in panels of Format::Bf16 and in packed rows: an even number
  int rounded_strip = 0;  // rows in a strip of x that is rounded to bfloat16, kMaxStrip in others

  // Up to so many rows that would be rounded to bfloat16 are multiplied with quantised weights as integers, and any number of
  // others; 0 where there are no instructions for it.
  std::int64_t integer_rows = 0;

  int strip(bool round_bf16) const noexcept { return round_bf16 ? rounded_strip : kMaxStrip; }

  void (*pack_rows)(const PackRows&) noexcept = nullptr;
  void (*gemm)(const GemmTask&) noexcept = nullptr;
  void (*store)(const StoreTile&) noexcept = nullptr;
  void (*store_act_mul)(const StoreTile&) noexcept = nullptr;
  void (*pack_panel)(const PackPanel&) noexcept = nullptr;
  // Output `n` of a panel as it is kept (unpack) or widened to float32.
  void (*unpack_row)(const std::byte* panel, Format format, std::int64_t depth, int n,
                     std::byte* out) noexcept = nullptr;
  void (*widen_row)(const std::byte* panel, Format format, std::int64_t depth, int n,
                    float* out) noexcept = nullptr;

  void (*rms_norm)(const float* x, const float* w, float eps, std::int64_t n,
                   float* y) noexcept = nullptr;
  void (*act_mul)(const float* gate, const float* up, Act act, std::int64_t n,
                  float* y) noexcept = nullptr;
  void (*add)(const float* x, std::int64_t n, float* y) noexcept = nullptr;
  void (*rope)(float* x, const float* cos, const float* sin, std::int64_t half) noexcept = nullptr;
  void (*softmax)(float* x, std::int64_t n) noexcept = nullptr;

  void (*kv_write)(const KvWrite&) noexcept = nullptr;
  void (*attend)(const AttendTask&) noexcept = nullptr;
  // Adds the result over later blocks (`from`) to the one over earlier blocks (`to`).
  void (*merge)(const AttendTask& from, const AttendTask& to) noexcept = nullptr;
  // y[i] = values[i] / total[i] for the first head_dim columns.
  void (*finish)(const AttendTask& task, std::int64_t row, float* y) noexcept = nullptr;
  // out[i][j] = the scaled scores of strip rows against the keys of one block, not masked: [rows][64].
  void (*block_scores)(const AttendTask& task, std::int64_t block, float* out) noexcept = nullptr;
  // values[i] += weights[i] v over `keys` keys of one block; weights: [rows][64].
  void (*block_mix)(const AttendTask& task, std::int64_t block, std::int64_t keys,
                    const float* weights) noexcept = nullptr;

  Limits limits;
};

const Kernels& kernels_scalar() noexcept;
const Kernels& kernels_avx2() noexcept;
const Kernels& kernels_avx512() noexcept;
const Kernels& kernels_avx512bf16() noexcept;
const Kernels& kernels_amx() noexcept;
const Kernels& kernels_neon() noexcept;

// The table in use. Throws ValueError if INFINILM_CPU names a level that is not here.
const Kernels& kernels();

}  // namespace infinilm::cpu
