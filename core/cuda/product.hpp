// x W^T for few rows of x, at the speed of memory: x and, once, the weights through shared memory.
#pragma once

#include <cstdint>

#include "cuda/context.hpp"
#include "cuda/weight_layout.hpp"
#include "infinilm/dtype.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

// What is known of a run of columns of a row of x (digits.cuh): the sum of its whole numbers, and what they are to be multiplied by.
struct alignas(8) Note {
  int sum;
  float scale;
};

// One row as codes of some format are multiplied by it (digits.cuh): two digits a column, in the order in which lanes multiply them, and a
// note of every kDigitRun columns, whose sums are there if the format has zeros.
inline constexpr int kDigitRun = 16;  // a tile of results
struct DigitRow {
  std::uint16_t* x = nullptr;  // [columns]
  Note* notes = nullptr;       // [columns / kDigitRun]
};

// One of the stacked matrices, and where its product goes.
struct ProductPart {
  MatrixView matrix;
  const float* bias = nullptr;
  float* y = nullptr;
  std::int64_t y_stride = 0;
};

inline constexpr int kMostParts = 4;

struct Product {
  const float* x = nullptr;  // [rows, inputs]
  std::int64_t x_stride = 0;
  // x rounded already, if not null; zeros behind the columns. For few rows of quantised weights as round_for_codes leaves it, with its
  // notes.
  const std::uint16_t* rounded = nullptr;
  std::int64_t rounded_stride = 0;  // a multiple of 8
  const Note* notes = nullptr;      // [runs, note_stride]
  int runs = 0, note_stride = 0;
  int rows = 0;
  DataType compute = DataType::F32;  // BF16, F16: x is rounded, and multiplied on tensor cores
  // x of one row as the product before has left it, if not null, and where this one leaves act(part 0) * part 1 so: y is the same then,
  // rounded to what the digits are.
  DigitRow digits, digits_of_y;

  // With `norm`, x is first normalised: x / sqrt(mean(x^2) + eps) * norm, and kept in `normed` if that is not null.
  const float* norm = nullptr;
  float eps = 0.0f;
  float* normed = nullptr;
  std::int64_t normed_stride = 0;

  ProductPart parts[kMostParts];
  int part_count = 0;
  bool are_weights_new = false;     // written by the kernel before
  const float* residual = nullptr;  // is added to y, and may be y
  std::int64_t residual_stride = 0;
  int act = -1;  // of HiddenAct: y of part 0 = act(part 0) * part 1

  // Filled in by `multiply`.
  bool fours = false;  // columns of x can be read four at a time
  bool adds = false;   // the residual is y
  int tiles = 0;
  int first_tiles[kMostParts] = {};  // of each part
  int rounds = 0;                    // of a block, at most
  int together = 1;                  // of them between two barriers
  int slots = 0;                     // of a row
  int share = 0;                     // of them, of a warp, at most
  int chunk = 0;                     // slots of which a warp keeps x in shared memory
  int x_shared_stride = 0;
  int x_at = 0;  // bytes, behind the rings
  int notes_at = 0;
  int sums_at = 0;
  int depth = 0;  // slots of a ring
  int ahead = 0;  // stages behind these that come into the device's cache early
  // Of many rows (product_many.cuh): `tiles` are panels then.
  int chunks = 0;               // of a row
  float* partial = nullptr;     // results of a block for parts of panels
  unsigned* arrived = nullptr;  // how many of them there are, per panel
};

// x as products of quantised weights take it: two digits for each column (digits.cuh).
struct CodeRows {
  std::uint16_t* x;
  std::int64_t stride;
  Note* notes;  // [runs, note_stride]
  int runs, note_stride;
};
// Bytes of it, for weights of some layout, to be given to round_for_codes.
std::size_t code_rows_bytes(const Matrix& x, const UnitLayout& layout);
CodeRows round_for_codes(Context& context, const Matrix& x, const MatrixView& weight,
                         std::byte* memory);

// Whether a product can leave its results as digits, and another one, which leaves none itself, take them.
bool can_leave_digits(const Product& product);
bool can_take_digits(const Product& product, const MatrixView& left_by);
std::size_t digit_row_bytes(std::int64_t columns);
DigitRow digit_row(std::byte* memory, std::int64_t columns);

// Rows for which every block of threads may as well normalise x by itself, and whether shared memory has room for that.
inline constexpr int kNormRows = 2;
bool can_normalise(const Context& context, const Product& product);
// Up to so many rows own kernels are faster than a library, where shared memory has room for x. Of more, x is to be rounded to the
// type of 16-bit arithmetic, also for quantised weights (or with notes: then it is multiplied as of few), and there is no
// act(gate) * up.
inline constexpr int kFewRows = 16;
// Any number of rows: as many as shared memory has room for while the weights go by once, 64 at most.
void multiply(Context& context, const Product& product, SplitMemory& splits);

}  // namespace infinilm::cuda
