#include "cuda/product.cuh"

namespace infinilm::cuda {

void launch_halves(Context& context, const Product& product) {
  if (product.compute == DataType::F16) {
    launch_tensor_sums<FloatUnit<Layout::F16>, true>(context, product);
  } else {
    launch_tensor_sums<FloatUnit<Layout::Bf16>, false>(context, product);
  }
}

}  // namespace infinilm::cuda
