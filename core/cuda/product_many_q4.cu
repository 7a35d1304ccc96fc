#include "cuda/product_many.cuh"

namespace infinilm::cuda {

void launch_many_q4(Context& context, const Product& product, SplitMemory& splits) {
  if (product.parts[0].matrix.unit.runs == 1) {
    launch_many_codes<Layout::Q4, 1>(context, product, splits);
  } else {
    launch_many_codes<Layout::Q4, 4>(context, product, splits);
  }
}

}  // namespace infinilm::cuda
