// Modules of a checkpoint that is quantised already, as QuantizedRows over its tensors: nothing is copied but a few rows.
//
// Codes and zeros are taken as they are. A scale becomes a float16: exact if it is one; one of bfloat16 down to 2^-14 too, since
// its 8 bits fit; otherwise to nearest even.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/quantization_config.hpp"
#include "infinilm/tensor.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm {

struct ExpectedTensor {
  std::string name;
  Shape shape;
  std::vector<DataType> dtypes;  // any of them
  bool required = true;
  bool by_rows = false;  // an output after the other
};

// What is wrong with the tensor of that name in `state`: missing, of another shape or dtype.
std::optional<std::string> fault_of(const ExpectedTensor& expected,
                                    const std::map<std::string, Tensor>& state);

// The tensors of the linear layer `module` ("model.layers.0.mlp.down_proj").
std::vector<ExpectedTensor> quantized_tensors(const QuantizationScheme& scheme,
                                              const std::string& module, std::int64_t outputs,
                                              std::int64_t inputs);

// Whether `module` is to be found quantised in `state`: the scheme covers it, and there is no ordinary weight in its place.
bool is_quantized(const QuantizationScheme& scheme, const std::map<std::string, Tensor>& state,
                  const std::string& module);

// What open_quantized will have.
QuantFormat format_of(const QuantizationScheme& scheme, std::int64_t inputs);

// ValueError naming the tensor, what was expected and what was found.
std::unique_ptr<QuantizedRows> open_quantized(const QuantizationScheme& scheme,
                                              const std::map<std::string, Tensor>& state,
                                              const std::string& module, std::int64_t outputs,
                                              std::int64_t inputs);

}  // namespace infinilm
