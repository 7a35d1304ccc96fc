// The end of both halves of a layer: a linear layer whose result is added to the residual stream.
#pragma once

#include "model/linear.hpp"
#include "model/step.hpp"

namespace infinilm {

// x += y W^T + b. The sum in front of the residual stream exists, and is shown at `point`, only if somebody wants it; the
// result is the same to the bit.
void add_linear(Step& step, Activation& y, const Linear& linear, Point point, int layer,
                Activation& x);

}  // namespace infinilm
