#include "infinilm/quantization.hpp"

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::size_t kMultiple = 32;
constexpr std::size_t kUsualGroup = 32;  // of int4

}  // namespace

Quantization::Quantization(const std::string& name, std::size_t group,
                           const std::string& activations) {
  check(name.empty() || name == "int8" || name == "int4",
        "quantization: expected \"int8\", \"int4\" or none, found ", quoted(name));
  check(activations.empty() || activations == "int8",
        "activations: expected \"int8\" or none, found ", quoted(activations));
  check(group % kMultiple == 0, "group_size: expected a multiple of ", kMultiple, ", found ",
        group);
  if (name.empty()) {
    check(group == 0, "group_size: expected none without quantization, found ", group);
    check(activations.empty(), "activations: expected none without quantization, found ",
          quoted(activations), "; add quantization=\"int8\" or \"int4\"");
    return;
  }
  bits = name == "int8" ? 8 : 4;
  group_size = group == 0 && bits == 4 ? kUsualGroup : group;
  int8_activations = !activations.empty();
}

std::string Quantization::name() const { return bits == 0 ? "" : concat("int", bits); }

std::string Quantization::str() const {
  if (bits == 0) return "none";
  const std::string groups = group_size == 0 ? " by rows" : concat(" in groups of ", group_size);
  return name() + groups + (int8_activations ? ", int8 activations" : "");
}

}  // namespace infinilm
