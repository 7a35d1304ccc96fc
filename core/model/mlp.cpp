#include "model/mlp.hpp"

#include <array>

#include "model/residual.hpp"

namespace infinilm {

Mlp::Mlp(const LlamaConfig& config, const LayerWeights& weights, int layer)
    : weights_(weights), act_(parse_hidden_act(config.hidden_act)), layer_(layer) {}

void Mlp::forward(Step& step, Activation& h, Activation& x) const {
  Activation y = gated(step, h);
  step.point(Point::MlpIntermediate, layer_, y, {y.cols()});
  add_linear(step, y, weights_.down, Point::Mlp, layer_, x);
}

// Gate and up exist by themselves only if somebody wants to see them; on the CPU the result is the same to the bit.
Activation Mlp::gated(Step& step, Activation& h) const {
  const Linear& linear = weights_.gate_up;
  const std::int64_t inner = linear.outputs();
  Activation y = step.make(inner);
  if (!step.wants(Point::MlpGateProj, layer_) && !step.wants(Point::MlpUpProj, layer_)) {
    step.ops.last_use(h.view());
    step.ops.linear_act_mul(h.view(), *linear.weight, linear.bias_pointers, act_, y.view());
    return y;
  }
  Activation gate = step.make(inner);
  Activation up = step.make(inner);
  const std::array<Matrix, 2> outputs = {gate.view(), up.view()};
  step.ops.last_use(h.view());
  step.ops.linear(h.view(), *linear.weight, linear.bias_pointers, outputs);
  step.point(Point::MlpGateProj, layer_, gate, {inner});
  step.point(Point::MlpUpProj, layer_, up, {inner});
  step.ops.act_mul(gate.view(), up.view(), act_, y.view());
  return y;
}

}  // namespace infinilm
