// The `quantization_config` of a checkpoint that is quantised already: how its tensors are laid out, and which modules are.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace infinilm {

// Whether a module is meant by a name that such a file has.
using ModulePattern = std::function<bool(const std::string& module)>;

// compressed-tensors: a whole name, the class "Linear", or "re:" and a regular expression for the beginning. ValueError that names
// `field` for an expression that is none.
ModulePattern whole_name(const std::string& field, const std::string& text);
// GPTQ, AWQ: one or more parts of a name: "lm_head", "mlp.down_proj", "model.layers.0".
ModulePattern name_parts(const std::string& text);

struct QuantizationScheme {
  enum class Layout { PackQuantized, IntQuantized, Gptq, Awq };

  Layout layout = Layout::PackQuantized;
  int bits = 4;                     // or 8
  std::int64_t group = 0;           // inputs that share a scale, a multiple of 32; 0: all of them
  bool zeros = false;               // a group has a zero of its own
  bool zeros_less_one = false;      // GPTQ's first format keeps zeros less one
  bool ordered = false;             // columns are grouped by a g_idx
  std::vector<ModulePattern> only;  // empty: all
  std::vector<ModulePattern> except;

  // Whether the linear layer of that name is quantised.
  bool covers(const std::string& module) const;
};

// Reads the JSON text of `quantization_config`; nothing for "null". ValueError that names the field and the value for what is
// not supported.
std::optional<QuantizationScheme> read_quantization_scheme(const std::string& json);

}  // namespace infinilm
