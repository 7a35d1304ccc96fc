#include "cuda/product_many.cuh"

namespace infinilm::cuda {

void launch_many_q8(Context& context, const Product& product, SplitMemory& splits) {
  if (product.parts[0].matrix.unit.runs == 1) {
    launch_many_codes<Layout::Q8, 1>(context, product, splits);
  } else {
    launch_many_codes<Layout::Q8, 2>(context, product, splits);
  }
}

}  // namespace infinilm::cuda
