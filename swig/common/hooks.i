// Hooks: the registry, its handles, and the step that a callback runs in.
%shared_ptr(infinilm::HookRegistry)
%shared_ptr(infinilm::HookHandle)
%shared_ptr(infinilm::Capture)

%ignore infinilm::HookEntry;
%ignore infinilm::HookHandle::HookHandle;
%ignore infinilm::HookRegistry::entries;
%ignore infinilm::HookRegistry::generation;
%ignore infinilm::HookRegistry::count;
%ignore infinilm::HookRegistry::attach;
%ignore infinilm::HookRegistry::scopes;
%ignore infinilm::HookScope;
%ignore std::enable_shared_from_this;
%ignore infinilm::live_hook_entries;
INFINILM_ATTRIBUTE(HookHandle, std::int64_t, calls, calls, "How often the hook has fired.")
INFINILM_ATTRIBUTE(HookHandle, std::string, name, name, "The name it was registered under.")
INFINILM_ATTRIBUTE(HookHandle, bool, active, active, "False once it was removed, replaced or cleared.")

%immutable infinilm::HookPoint::name;
%immutable infinilm::HookPoint::shape;
%immutable infinilm::HookPoint::shape_values;
%immutable infinilm::HookPoint::when;
%immutable infinilm::HookPoint::aliases;
%immutable infinilm::HookPoint::layer_idx;
%immutable infinilm::HookPointPattern::name;
%immutable infinilm::HookPointPattern::shape;
%immutable infinilm::HookPointPattern::when;
%immutable infinilm::HookPointPattern::aliases;
%immutable infinilm::HookPointPattern::per_layer;
%immutable infinilm::StepSequence::row_begin;
%immutable infinilm::StepSequence::rows;
%immutable infinilm::StepSequence::position;
%immutable infinilm::StepSequence::slot;
%immutable infinilm::StepInfo::step;
%immutable infinilm::StepInfo::sequences;
%nodefaultctor infinilm::HookPoint;
%nodefaultctor infinilm::HookPointPattern;
%nodefaultctor infinilm::StepSequence;
%nodefaultctor infinilm::StepInfo;

// A value of its own: the core's is gone when the callback returns.
%ignore infinilm::current_step;
%feature("docstring") infinilm::StepInfo "The forward pass that a hook is called from: its number and its sequences.";
%warnfilter(401) infinilm::HookRegistry;  // its base serves C++ only
%include "infinilm/hooks.hpp"

%ignore infinilm::Capture::Capture;
%nodefaultctor infinilm::Captured;
%ignore infinilm::Captured::Captured;
INFINILM_ATTRIBUTE(Captured, std::string, name, name, "The point, or the alias that the capture was asked for.")
INFINILM_ATTRIBUTE(Captured, int, layer_idx, layer_idx, "Index of the layer, -1 where there is none.")
INFINILM_ATTRIBUTE(Capture, std::int64_t, calls, calls, "How many values it has been given.")
INFINILM_ATTRIBUTE(Capture, std::string, name, name, "The name it was asked for.")
INFINILM_ATTRIBUTE(Capture, bool, active, active, "False once it was removed or cleared.")
INFINILM_ATTRIBUTE(Captured, std::size_t, nbytes, nbytes, "Bytes of the tensor.")
%include "infinilm/capture.hpp"
%inline %{
namespace infinilm_swig {
/// The sequences of the forward pass that is running on this thread. Only inside of a hook.
infinilm::StepInfo current_step() { return infinilm::current_step(); }
}  // namespace infinilm_swig
%}
