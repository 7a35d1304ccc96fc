// The modules of a checkpoint that is quantised already.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/quantization_config.hpp"
#include "infinilm/config.hpp"
#include "infinilm/model.hpp"
#include "quant/import.hpp"

namespace infinilm {

// Whether a checkpoint of this config is quantised already, in part at least.
bool is_quantized_already(const LlamaConfig& config);

class ImportedModules {
 public:
  // `state` outlives it; `source` names it in messages.
  ImportedModules(const LlamaConfig& config, const std::map<std::string, Tensor>& state,
                  std::string source);

  // The tensors that are to be found for a parameter: itself, or what is in the place of a quantised matrix.
  std::vector<ExpectedTensor> tensors_of(const ParameterInfo& parameter) const;

  // Whether matrices that share their input are quantised already; ValueError if only some of them are.
  bool holds(const std::vector<ParameterInfo>& matrices) const;
  // What they are quantised to, if so.
  QuantFormat format(const std::vector<ParameterInfo>& matrices) const;
  // Those, if so. ValueError also if they are not of one format, or their inputs not in one order.
  std::vector<std::unique_ptr<QuantizedRows>> open(
      const std::vector<ParameterInfo>& matrices) const;

 private:
  // How a parameter is quantised already; null if it is not.
  const QuantizationScheme* scheme_of(const ParameterInfo& parameter) const;

  std::vector<QuantizationScheme> schemes_;
  const std::map<std::string, Tensor>& state_;
  std::string source_;
};

}  // namespace infinilm
