#include "cuda/product.cuh"

namespace infinilm::cuda {

void launch_q4(Context& context, const Product& product) {
  for_unit<Layout::Q4>(product.parts[0].matrix.unit,
                       [&]<class Unit>() { launch_quantised<Unit>(context, product); });
}

}  // namespace infinilm::cuda
