// Callables, and what the language supplies to long calls without the caller.
%{
#include "support/callbacks.hpp"
%}

INFINILM_PY_IN(infinilm::HookCallback, to_value, "infinilm._slots.Slot")
INFINILM_PY_IN(std::vector<infinilm::LogitsProcessor>, to_value, "collections.abc.Sequence[typing.Any]")
INFINILM_PY_IN(infinilm::ProgressCallback, to_value, "typing.Optional[collections.abc.Callable[[int, int], object]]")

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm_py::frontend();
}
