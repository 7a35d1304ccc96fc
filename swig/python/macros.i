// The macros that swig/common expects of every language.
%{
#include "support/errors.hpp"
%}

// In a catch clause: sets the language's error and leaves the wrapper.
#define INFINILM_RAISE infinilm_py::set_error_from_exception(); SWIG_fail;

// Calls that run long or can reach a callback release the interpreter lock; the others keep it.
%define INFINILM_LONG_CALLS
%thread;
%enddef
%define INFINILM_SHORT_CALLS
%nothread;
%enddef
