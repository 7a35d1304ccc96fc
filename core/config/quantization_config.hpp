// The `quantization_config` of a checkpoint that is quantised already: how its tensors are laid out, and which modules are.
#pragma once

#include <cstdint>
#include <optional>
#include <regex>
#include <string>
#include <vector>

namespace infinilm {

// A name of a module as such files write it.
class ModulePattern {
 public:
  // compressed-tensors: a whole name, the class "Linear", or "re:" and a regular expression for the beginning.
  static ModulePattern whole(const std::string& field, const std::string& text);
  // GPTQ, AWQ: one or more parts of a name: "lm_head", "mlp.down_proj", "model.layers.0".
  static ModulePattern parts(const std::string& text);

  bool matches(const std::string& module) const;

 private:
  enum class Kind { Every, Whole, Parts, Expression };
  ModulePattern(Kind kind, std::string text) : kind_(kind), text_(std::move(text)) {}

  Kind kind_;
  std::string text_;
  std::regex expression_;
};

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
