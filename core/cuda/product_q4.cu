#include "cuda/product.cuh"

namespace infinilm::cuda {
namespace {

template <int kRuns, bool kZeros>
void launch_unit(Context& context, const Product& product) {
  using Unit = QuantisedUnit<Layout::Q4, kRuns, kZeros>;
  switch (product.compute) {
    case DataType::BF16:
      return launch_tensor_sums<Unit, false>(context, product);
    case DataType::F16:
      return launch_tensor_sums<Unit, true>(context, product);
    default:
      return launch_float_sums<Unit>(context, product);
  }
}

template <int kRuns>
void launch_runs(Context& context, const Product& product) {
  if (product.parts[0].matrix.unit.zeros) return launch_unit<kRuns, true>(context, product);
  launch_unit<kRuns, false>(context, product);
}

}  // namespace

void launch_q4(Context& context, const Product& product) {
  if (product.parts[0].matrix.unit.runs == 1) {
    launch_runs<1>(context, product);
  } else {
    launch_runs<4>(context, product);
  }
}

}  // namespace infinilm::cuda
