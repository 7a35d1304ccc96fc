#include "cuda/product.cuh"

#include <algorithm>

namespace infinilm::cuda {

// 64 rows of x with their sums take 173 KiB of shared memory, 16 take 75.
int most_rows(const Context& context, const Product& product) {
  constexpr std::size_t kForMany = std::size_t{176} << 10;
  if (product.compute == DataType::F32) return 4;
  return context.shared_limit() >= kForMany ? 64 : 16;
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
    if (p.normed != nullptr) some.normed += begin * p.normed_stride;
    for (ProductPart& part : some.parts) {
      if (part.y != nullptr) part.y += begin * part.y_stride;
    }
    launch(context, some);
  }
}

}  // namespace infinilm::cuda
