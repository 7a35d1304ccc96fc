// The macros that swig/common expects of every language.
%{
#include "support/callbacks.hpp"
%}

// In a catch clause: leaves the wrapper with a Java exception pending.
#define INFINILM_RAISE infinilm_java::raise(jenv); return $null;

// Java has no lock to release.
#define INFINILM_LONG_CALLS
#define INFINILM_SHORT_CALLS
