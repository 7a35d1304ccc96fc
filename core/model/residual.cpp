#include "model/residual.hpp"

#include <array>

namespace infinilm {

void add_linear(Step& step, Activation& y, const Linear& linear, Point point, int layer,
                Activation& x) {
  if (!step.wants(point, layer)) {
    const Activation::Update sum = x.update();
    step.ops.last_use(y.view());
    step.ops.linear(y.view(), *linear.weight, linear.bias_pointers, {&sum.to, 1}, sum.from);
    return;
  }
  Activation sum = step.make(x.cols());
  const std::array<Matrix, 1> output = {sum.view()};
  step.ops.last_use(y.view());
  step.ops.linear(y.view(), *linear.weight, linear.bias_pointers, output);
  step.point(point, layer, sum, {sum.cols()});
  step.ops.add(sum.view(), x.writable());
}

}  // namespace infinilm
