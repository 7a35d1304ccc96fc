#include "cuda/product_many.cuh"

namespace infinilm::cuda {

void launch_many_halves(Context& context, const Product& product, SplitMemory& splits) {
  if (product.compute == DataType::F16) {
    launch_counts<FloatUnit<Layout::F16>, true>(context, product, splits);
  } else {
    launch_counts<FloatUnit<Layout::Bf16>, false>(context, product, splits);
  }
}

}  // namespace infinilm::cuda
