#include "cuda/product.cuh"

namespace infinilm::cuda {

void launch_q8(Context& context, const Product& product) {
  if (product.parts[0].matrix.unit.runs == 1) {
    launch_runs<Layout::Q8, 1>(context, product);
  } else {
    launch_runs<Layout::Q8, 2>(context, product);
  }
}

}  // namespace infinilm::cuda
