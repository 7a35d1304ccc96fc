// The `quantization_config` of a checkpoint that is quantised already: how its tensors are laid out, and which modules are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace infinilm {

// A name of a module as such files write it.
class ModulePattern {
 public:
  // compressed-tensors: a whole name, the class "Linear" or "Embedding", or "re:" and a regular expression for the beginning.
  // ValueError that names `field` for an expression that is none.
  static ModulePattern whole(const std::string& field, const std::string& text);
  // GPTQ, AWQ: one or more parts of a name: "lm_head", "mlp.down_proj", "model.layers.0".
  static ModulePattern parts(const std::string& text);

  // `type`: the module's class.
  bool matches(const std::string& module, const std::string& type) const {
    return match_(module, type);
  }
  // A name says more than a class and goes before it.
  bool is_class() const noexcept { return is_class_; }

 private:
  using Match = std::function<bool(const std::string& module, const std::string& type)>;
  ModulePattern(bool is_class, Match match) : is_class_(is_class), match_(std::move(match)) {}

  bool is_class_;
  Match match_;
};

struct QuantizationScheme {
  enum class Layout { PackQuantized, IntQuantized, Gptq, Awq };

  Layout layout = Layout::PackQuantized;
  int bits = 4;                     // or 8
  std::int64_t group = 0;           // inputs that share a scale, a multiple of 32; 0: all of them
  bool zeros = false;               // a group has a zero of its own
  bool zeros_less_one = false;      // GPTQ's first format keeps zeros less one
  bool ordered = false;             // columns are grouped by a g_idx
  std::vector<ModulePattern> only;  // empty: all linear layers
  std::vector<ModulePattern> except;
};

inline constexpr const char* kLinear = "Linear";
inline constexpr const char* kEmbedding = "Embedding";

// The scheme of a module: the first that names it, or else the first for its class (kLinear, kEmbedding); null if none is for it.
const QuantizationScheme* find_scheme(const std::vector<QuantizationScheme>& schemes,
                                      const std::string& module, const std::string& type);

// Reads the JSON text of `quantization_config`, a scheme for each of its groups; none for "null". ValueError that names the
// field and the value for what is not supported.
std::vector<QuantizationScheme> read_quantization_schemes(const std::string& json);

// What `pack-quantized` says of some modules.
struct PackedGroup {
  int bits = 0;
  std::int64_t group = 0;  // 0: whole rows
  bool zeros = false;
  bool ordered = false;
  std::vector<std::string> targets;  // names, or a class
};

// `config_json` (an object) with the `quantization_config` of compressed-tensors that says so, or without one if there are no
// groups. `ignore`: linear layers that are not quantised.
std::string with_packed_groups(const std::string& config_json,
                               const std::vector<PackedGroup>& groups,
                               const std::vector<std::string>& ignore);

}  // namespace infinilm
