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

bool is_quantized_already(const LlamaConfig& config) {
  return config.quantization_config_json() != "null";
}

ImportedModules::ImportedModules(const LlamaConfig& config,
                                 const std::map<std::string, Tensor>& state, std::string source)
    : schemes_(read_quantization_schemes(config.quantization_config_json())),
      state_(state),
      source_(std::move(source)) {}

const QuantizationScheme* ImportedModules::scheme_of(const ParameterInfo& parameter) const {
  if (parameter.shape.size() != 2) return nullptr;
  const std::string module = module_of(parameter);
  const char* type = parameter.name == kEmbedTokens ? kEmbedding : kLinear;
  const QuantizationScheme* scheme = find_scheme(schemes_, module, type);
  return scheme && is_quantized(*scheme, state_, module) ? scheme : nullptr;
}

std::vector<ExpectedTensor> ImportedModules::tensors_of(const ParameterInfo& parameter) const {
  if (const QuantizationScheme* scheme = scheme_of(parameter)) {
    return quantized_tensors(*scheme, module_of(parameter), parameter.shape[0], parameter.shape[1]);
  }
  return {{parameter.name, parameter.shape, {DataType::F32, DataType::F16, DataType::BF16}}};
}

bool ImportedModules::holds(const std::vector<ParameterInfo>& matrices) const {
  const bool first = scheme_of(matrices.front()) != nullptr;
  for (const ParameterInfo& m : matrices) {
    check((scheme_of(m) != nullptr) == first, source_, ": expected ",
          quoted(module_of(matrices.front())), " and ", quoted(module_of(m)),
          ", which share their input, both quantised or neither, found one");
  }
  return first;
}

QuantFormat ImportedModules::format(const std::vector<ParameterInfo>& matrices) const {
  return format_of(*scheme_of(matrices.front()), matrices.front().shape[1]);
}

std::vector<std::unique_ptr<QuantizedRows>> ImportedModules::open(
    const std::vector<ParameterInfo>& matrices) const {
  std::vector<std::unique_ptr<QuantizedRows>> rows;
  try {
    for (const ParameterInfo& m : matrices) {
      rows.push_back(open_quantized(*scheme_of(m), state_, module_of(m), m.shape[0], m.shape[1]));
      check(rows.back()->format() == rows.front()->format(), quoted(module_of(m)),
            ": expected the bits, group size and zeros of ", quoted(module_of(matrices.front())),
            ", which shares its input");
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
