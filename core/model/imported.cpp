#include "model/imported.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "infinilm/error.hpp"
#include "model/parameters.hpp"

namespace infinilm {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string module_of(const ParameterInfo& matrix) {
  return matrix.name.substr(0, matrix.name.size() - kWeight.size());
}

}  // namespace

ImportedModules::ImportedModules(const LlamaConfig& config,
                                 const std::map<std::string, Tensor>& state, std::string source)
    : scheme_(read_quantization_scheme(config.quantization_config_json())),
      state_(state),
      source_(std::move(source)) {}

bool ImportedModules::holds_one(const ParameterInfo& matrix) const {
  const bool linear = matrix.shape.size() == 2 && matrix.name != kEmbedTokens;
  return scheme_ && linear && is_quantized(*scheme_, state_, module_of(matrix));
}

std::vector<ExpectedTensor> ImportedModules::tensors_of(const ParameterInfo& parameter) const {
  if (holds_one(parameter)) {
    return quantized_tensors(*scheme_, module_of(parameter), parameter.shape[0],
                             parameter.shape[1]);
  }
  return {{parameter.name, parameter.shape, {DataType::F32, DataType::F16, DataType::BF16}}};
}

bool ImportedModules::holds(const std::vector<ParameterInfo>& matrices) const {
  const bool first = holds_one(matrices.front());
  for (const ParameterInfo& m : matrices) {
    check(holds_one(m) == first, source_, ": expected ", quoted(module_of(matrices.front())),
          " and ", quoted(module_of(m)),
          ", which share their input, both quantised or neither, found one");
  }
  return first;
}

std::vector<std::unique_ptr<QuantizedRows>> ImportedModules::open(
    const std::vector<ParameterInfo>& matrices) const {
  std::vector<std::unique_ptr<QuantizedRows>> rows;
  try {
    for (const ParameterInfo& m : matrices) {
      rows.push_back(open_quantized(*scheme_, state_, module_of(m), m.shape[0], m.shape[1]));
      check(std::ranges::equal(rows.back()->input_order(), rows.front()->input_order()),
            quoted(module_of(m)), ": expected the same g_idx as that of ",
            quoted(module_of(matrices.front())), ", which shares its input");
    }
  } catch (const ValueError& error) {
    throw ValueError(concat(source_, ": ", error.what()));
  }
  return rows;
}

}  // namespace infinilm
