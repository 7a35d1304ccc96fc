#include "quant/import.hpp"

#include <algorithm>
#include <utility>

#include "infinilm/error.hpp"
#include "quant/import_module.hpp"
#include "quant/quant_format.hpp"

namespace infinilm {
namespace {

using Layout = QuantizationScheme::Layout;

const std::vector<DataType> kScaleTypes = {DataType::F32, DataType::F16, DataType::BF16};

std::string weight_name(Layout layout) {
  switch (layout) {
    case Layout::PackQuantized:
      return "weight_packed";
    case Layout::IntQuantized:
      return "weight";
    case Layout::Gptq:
    case Layout::Awq:
      break;
  }
  return "qweight";
}

bool is_float(DataType dtype) {
  return std::find(kScaleTypes.begin(), kScaleTypes.end(), dtype) != kScaleTypes.end();
}

std::vector<ExpectedTensor> compressed_tensors(const QuantizationScheme& s, std::int64_t outputs,
                                               std::int64_t inputs, std::int64_t groups) {
  const bool packed = s.layout == Layout::PackQuantized;
  std::vector<ExpectedTensor> list;
  if (packed) {
    list.push_back(
        {"weight_packed", {outputs, packed_words(inputs, s.bits)}, {DataType::I32}, true, true});
    list.push_back({"weight_shape", {2}, {DataType::I64, DataType::I32}, false});
  } else {
    list.push_back({"weight", {outputs, inputs}, {DataType::I8}, true, true});
  }
  list.push_back({"weight_scale", {outputs, groups}, kScaleTypes, true, true});
  if (s.zeros) {
    const Shape shape = {packed ? packed_words(outputs, s.bits) : outputs, groups};
    list.push_back({"weight_zero_point", shape, {packed ? DataType::I32 : DataType::I8}});
  }
  list.push_back({"weight_g_idx", {inputs}, {DataType::I32}, s.ordered});
  return list;
}

std::vector<ExpectedTensor> column_tensors(const QuantizationScheme& s, std::int64_t outputs,
                                           std::int64_t inputs, std::int64_t groups) {
  const bool gptq = s.layout == Layout::Gptq;
  const Shape shape = gptq ? Shape{packed_words(inputs, s.bits), outputs}
                           : Shape{inputs, packed_words(outputs, s.bits)};
  std::vector<ExpectedTensor> list = {
      {"qweight", shape, {DataType::I32}},
      {"qzeros", {groups, packed_words(outputs, s.bits)}, {DataType::I32}},
      {"scales", {groups, outputs}, kScaleTypes},
  };
  if (gptq) list.push_back({"g_idx", {inputs}, {DataType::I32}, s.ordered});
  return list;
}

std::vector<ExpectedTensor> tensors_of(const QuantizationScheme& s, std::int64_t outputs,
                                       std::int64_t inputs) {
  const std::int64_t groups = group_count(format_of(s, inputs), inputs);
  const bool columns = s.layout == Layout::Gptq || s.layout == Layout::Awq;
  return columns ? column_tensors(s, outputs, inputs, groups)
                 : compressed_tensors(s, outputs, inputs, groups);
}

// "int64 or int32", "float32, float16 or bfloat16".
std::string names_of(const std::vector<DataType>& dtypes) {
  std::string text(name_of(dtypes.front()));
  for (std::size_t i = 1; i < dtypes.size(); ++i)
    text.append(i + 1 == dtypes.size() ? " or " : ", ").append(name_of(dtypes[i]));
  return text;
}

}  // namespace

std::optional<std::string> fault_of(const ExpectedTensor& expected,
                                    const std::map<std::string, Tensor>& state) {
  const auto found = state.find(expected.name);
  if (found == state.end()) {
    if (!expected.required) return std::nullopt;
    return concat("missing ", quoted(expected.name), " ", str_of(expected.shape));
  }
  const Tensor& t = found->second;
  if (t.shape() != expected.shape) {
    return concat(quoted(expected.name), ": expected shape ", str_of(expected.shape), ", found ",
                  str_of(t.shape()));
  }
  const auto& dtypes = expected.dtypes;
  if (std::find(dtypes.begin(), dtypes.end(), t.dtype()) == dtypes.end()) {
    return concat(quoted(expected.name), ": expected dtype ", names_of(dtypes), ", found ",
                  name_of(t.dtype()));
  }
  return std::nullopt;
}

QuantFormat format_of(const QuantizationScheme& scheme, std::int64_t inputs) {
  // A group that reaches beyond the row is the row: padding it would only cost memory.
  const bool whole = scheme.group == 0 || scheme.group >= inputs;
  QuantFormat format =
      whole ? by_rows(scheme.bits, inputs) : QuantFormat{scheme.bits, scheme.group, false};
  format.zeros = scheme.zeros;
  return format;
}

std::vector<ExpectedTensor> quantized_tensors(const QuantizationScheme& scheme,
                                              const std::string& module, std::int64_t outputs,
                                              std::int64_t inputs) {
  std::vector<ExpectedTensor> list = tensors_of(scheme, outputs, inputs);
  for (ExpectedTensor& tensor : list) tensor.name = module + "." + tensor.name;
  return list;
}

bool is_quantized(const QuantizationScheme& scheme, const std::map<std::string, Tensor>& state,
                  const std::string& module) {
  if (state.contains(module + "." + weight_name(scheme.layout)) &&
      scheme.layout != Layout::IntQuantized) {
    return true;
  }
  const auto ordinary = state.find(module + ".weight");
  return ordinary == state.end() || !is_float(ordinary->second.dtype());
}

std::unique_ptr<QuantizedRows> open_quantized(const QuantizationScheme& scheme,
                                              const std::map<std::string, Tensor>& state,
                                              const std::string& module, std::int64_t outputs,
                                              std::int64_t inputs) {
  ImportedModule m{scheme, module, outputs, inputs, format_of(scheme, inputs), {}};
  for (const ExpectedTensor& tensor : tensors_of(scheme, outputs, inputs)) {
    ExpectedTensor expected = tensor;
    expected.name = m.name_of(tensor.name);
    const auto fault = fault_of(expected, state);
    check(!fault, fault.value_or(""));
    const auto found = state.find(expected.name);
    if (found != state.end()) m.tensors.emplace(tensor.name, found->second.contiguous());
  }
  const std::string zero_point = m.name_of("weight_zero_point");
  check(scheme.zeros || !state.contains(zero_point), quoted(zero_point),
        ": expected none beside \"symmetric\": true");
  if (scheme.layout == Layout::Gptq) return open_gptq(std::move(m));
  if (scheme.layout == Layout::Awq) return open_awq(std::move(m));
  return open_compressed(std::move(m));
}

}  // namespace infinilm
