#include "cuda/product.cuh"
#include "cuda/product_many.cuh"

#include <algorithm>

namespace infinilm::cuda {

namespace {

// Whether rows of x and the norm's weights can be read four columns at a time.
bool has_fours(const Product& p) {
  const auto fits = [](const float* memory, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0 && stride % 4 == 0;
  };
  return p.parts[0].matrix.inputs % 4 == 0 && fits(p.x, p.x_stride) && fits(p.norm, 0);
}

bool is_quantised(const Product& p) { return is_quantised(p.parts[0].matrix.layout); }

std::size_t shared_kilobytes(const Context& context) { return context.shared_limit() >> 10; }

// Whether it is for the kernels of many rows, by what shared memory has room for.
bool is_for_many(const Context& context, const Product& p) {
  return p.rows > kFewRows && p.compute != DataType::F32 && p.notes == nullptr &&
         (is_quantised(p) || shared_kilobytes(context) >= 160);
}

// By what shared memory has room for: x, sums and at least the smallest rings.
int most_rows(const Context& context, const Product& p) {
  const std::size_t kilobytes = shared_kilobytes(context);
  const bool in_floats = p.compute == DataType::F32;
  if (is_for_many(context, p)) return kilobytes < 160 ? 32 : 64;
  if (kilobytes < 160) return is_quantised(p) ? 1 : 4;
  if (in_floats) return 4;
  const bool is_wide = p.parts[0].matrix.layout == Layout::Q4 && p.act >= 0;
  return kilobytes < 200 && is_wide ? 8 : kFewRows;
}

}  // namespace

bool can_normalise(const Context& context, const Product& p) {
  constexpr std::size_t kForWeights = std::size_t{128} << 10;
  const std::size_t item = p.compute == DataType::F32 ? 4 : 2;
  const auto inputs = static_cast<std::size_t>(p.parts[0].matrix.inputs);
  return has_fours(p) && p.rows <= kNormRows &&
         static_cast<std::size_t>(p.rows) * inputs * item + kForWeights <= context.shared_limit();
}

bool can_leave_digits(const Product& p) {
  const MatrixView& m = p.parts[0].matrix;
  return p.rows == 1 && p.act >= 0 && is_quantised(p) && p.compute != DataType::F32 &&
         takes_pairs(m) && m.outputs % (2 * m.unit.columns) == 0;
}

bool can_take_digits(const Product& p, const MatrixView& left_by) {
  const MatrixView& m = p.parts[0].matrix;
  // There is memory for the digits of one product.
  return p.rows == 1 && p.act < 0 && p.compute != DataType::F32 && m.layout == left_by.layout &&
         (left_by.unit.zeros || !m.unit.zeros) && takes_pairs(m);
}

std::size_t digit_row_bytes(std::int64_t columns) {
  return static_cast<std::size_t>(columns) * sizeof(std::uint16_t) +
         static_cast<std::size_t>(columns / kDigitRun) * sizeof(Note);
}

DigitRow digit_row(std::byte* memory, std::int64_t columns) {
  auto* x = reinterpret_cast<std::uint16_t*>(memory);
  return {x, reinterpret_cast<Note*>(x + columns)};
}

namespace {

void launch_few(Context& context, const Product& p) {
  switch (p.parts[0].matrix.layout) {
    case Layout::Q8:
      return launch_q8(context, p);
    case Layout::Q4:
      return launch_q4(context, p);
    default:
      return p.compute == DataType::F32 ? launch_floats(context, p) : launch_halves(context, p);
  }
}

void launch_many(Context& context, const Product& p, SplitMemory& splits) {
  switch (p.parts[0].matrix.layout) {
    case Layout::Q8:
      return launch_many_q8(context, p, splits);
    case Layout::Q4:
      return launch_many_q4(context, p, splits);
    default:
      return launch_many_halves(context, p, splits);
  }
}

}  // namespace

void multiply(Context& context, const Product& p, SplitMemory& splits) {
  const int rows = p.rows, most = most_rows(context, p);
  const bool is_many = is_for_many(context, p);
  for (int begin = 0; begin < rows; begin += most) {
    Product some = p;
    some.rows = std::min(most, rows - begin);
    some.x += begin * p.x_stride;
    if (p.rounded != nullptr) some.rounded += begin * p.rounded_stride;
    if (p.notes != nullptr) some.notes += begin;
    if (p.normed != nullptr) some.normed += begin * p.normed_stride;
    for (ProductPart& part : some.parts) {
      if (part.y != nullptr) part.y += begin * part.y_stride;
    }
    if (p.residual != nullptr) some.residual += begin * p.residual_stride;
    some.fours = has_fours(some);
    if (is_many) {
      launch_many(context, some, splits);
    } else {
      launch_few(context, some);
    }
  }
}

}  // namespace infinilm::cuda
