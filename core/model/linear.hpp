// A linear layer: one or several stacked matrices with their biases.
#pragma once

#include <memory>
#include <vector>

#include "infinilm/tensor.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// A vector of parameters: as it was stored, for state_dict, and in float32 on the device, for computing.
struct VectorParameter {
  Tensor stored;
  Tensor f32;

  const float* data() const { return reinterpret_cast<const float*>(f32.data()); }
  explicit operator bool() const { return stored.ndim() == 1 && stored.buffer() != nullptr; }
};

struct Linear {
  std::unique_ptr<Weight> weight;
  std::vector<VectorParameter> biases;      // empty, or one for each part
  std::vector<const float*> bias_pointers;  // the same, for Ops

  std::int64_t outputs(std::size_t part = 0) const { return weight->outputs(part); }
};

}  // namespace infinilm
