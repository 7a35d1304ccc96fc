#include "ops/ops.hpp"

#include "infinilm/error.hpp"

namespace infinilm {

HiddenAct parse_hidden_act(std::string_view name) {
  if (name == "silu" || name == "swish") return HiddenAct::Silu;
  if (name == "gelu") return HiddenAct::Gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return HiddenAct::GeluTanh;
  if (name == "relu") return HiddenAct::Relu;
  throw ValueError(
      concat("hidden_act: expected silu, swish, gelu, gelu_new, gelu_pytorch_tanh or relu, found ",
             quoted(name)));
}

}  // namespace infinilm
