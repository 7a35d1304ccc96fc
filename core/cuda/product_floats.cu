#include "cuda/product.cuh"

namespace infinilm::cuda {

void launch_floats(Context& context, const Product& product) {
  switch (product.parts[0].matrix.layout) {
    case Layout::F32:
      return launch_float_sums<FloatUnit<Layout::F32>>(context, product);
    case Layout::F16:
      return launch_float_sums<FloatUnit<Layout::F16>>(context, product);
    default:
      return launch_float_sums<FloatUnit<Layout::Bf16>>(context, product);
  }
}

}  // namespace infinilm::cuda
