// What every language wraps. A language's entry file supplies first what README.md lists (typemaps and a few macros), then
// includes this file. No target language is mentioned in this folder.

// So that SWIG takes these for numbers, also as defaults.
namespace std {
typedef unsigned long size_t;
typedef long int64_t;
typedef unsigned long uint64_t;
}
namespace infinilm {
enum class DataType : int;  // these two by typemaps only
class Frontend;
}

// Comparison is offered as `equals`: operators are every language's own matter.
%ignore operator==;
%ignore infinilm::operator==;
%ignore operator=;
%warnfilter(362) operator=;
%warnfilter(511) operator==;

%ignore SHARED_PTR_DISOWN;
%include <std_shared_ptr.i>

INFINILM_SHORT_CALLS
%include "tensor.i"
%include "config.i"
INFINILM_LONG_CALLS
%include "hooks.i"
%include "model.i"
%include "generate.i"
%include "operations.i"
%include "files.i"
%include "ceilings.i"
INFINILM_SHORT_CALLS
%include "runtime.i"
