#include "cuda/product.cuh"

#include <algorithm>

namespace infinilm::cuda {

namespace {

// Whether rows of x, the norm's weights and its result can be read and written four columns at a time.
bool has_fours(const Product& p) {
  const auto fits = [](const float* memory, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0 && stride % 4 == 0;
  };
  return p.parts[0].matrix.inputs % 4 == 0 && fits(p.x, p.x_stride) && fits(p.norm, 0) &&
         fits(p.normed, p.normed_stride);
}

}  // namespace

// By what shared memory has room for: x, sums and at least the smallest rings.
int most_rows(const Context& context, const Product& product) {
  const std::size_t kilobytes = context.shared_limit() >> 10;
  const Layout layout = product.parts[0].matrix.layout;
  const bool is_quantised = layout == Layout::Q8 || layout == Layout::Q4;
  const bool in_floats = product.compute == DataType::F32;
  if (kilobytes < 160) return !is_quantised ? 4 : in_floats ? 1 : 2;
  if (in_floats) return 4;
  if (kilobytes < 200 && layout == Layout::Q4 && product.act >= 0) return 8;
  return is_quantised || kilobytes < 200 ? 16 : 64;
}

bool can_normalise(const Context& context, const Product& p) {
  constexpr std::size_t kForWeights = std::size_t{128} << 10;
  const std::size_t item = p.compute == DataType::F32 ? 4 : 2;
  const auto inputs = static_cast<std::size_t>(p.parts[0].matrix.inputs);
  return has_fours(p) && inputs <= kMostNormed &&
         static_cast<std::size_t>(p.rows) * inputs * item + kForWeights <= context.shared_limit();
}

namespace {

void launch(Context& context, const Product& p) {
  switch (p.parts[0].matrix.layout) {
    case Layout::Q8:
      return launch_q8(context, p);
    case Layout::Q4:
      return launch_q4(context, p);
    default:
      return p.compute == DataType::F32 ? launch_floats(context, p) : launch_halves(context, p);
  }
}

}  // namespace

void multiply(Context& context, Product p) {
  const int rows = p.rows, most = most_rows(context, p);
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
    some.fours = has_fours(some);
    launch(context, some);
  }
}

}  // namespace infinilm::cuda
