#include "ops/ops.hpp"

#include "cpu/ops_cpu.hpp"
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

std::shared_ptr<Ops> ops_for(const Device& device) {
  check<Error>(device.type() == DeviceType::CPU,
               "CUDA is not supported by this build: there is no device ", quoted(device.str()),
               "; use device=\"cpu\"");
  // Never destroyed: a model may outlive the program's static objects.
  static const auto* shared =
      new std::shared_ptr<Ops>(std::make_shared<cpu::OpsCpu>(cpu::kernels()));
  return *shared;
}

}  // namespace infinilm
