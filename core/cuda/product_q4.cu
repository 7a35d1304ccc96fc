#include "cuda/product.cuh"

namespace infinilm::cuda {

void launch_q4(Context& context, const Product& product) {
  if (product.parts[0].matrix.unit.runs == 1) {
    launch_runs<Layout::Q4, 1>(context, product);
  } else {
    launch_runs<Layout::Q4, 4>(context, product);
  }
}

}  // namespace infinilm::cuda
