#include "cuda/product_many.cuh"

namespace infinilm::cuda {

void launch_many_q8(Context& context, const Product& product, SplitMemory& splits) {
  for_unit<Layout::Q8>(product.parts[0].matrix.unit, [&]<class Unit>() {
    launch_many_quantised<Unit>(context, product, splits);
  });
}

}  // namespace infinilm::cuda
