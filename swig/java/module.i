// The entry file of Java classes: so far a proof that swig/common wraps into a third language (`tox -e languages`
// generates from it). What a finished language supplies on top is listed in swig/common/README.md.
%module Engine

%include <stdint.i>
%include <std_string.i>
%apply size_t { std::size_t };

%include "../common/headers.i"

// In a catch clause: an exception with the text of the C++ one.
#define INFINILM_RAISE \
  infinilm_java::raise(jenv); \
  return $null;
%{
#include <exception>

namespace infinilm_java {
// Throws in Java the exception that is being handled.
inline void raise(JNIEnv* env) {
  try {
    throw;
  } catch (const std::exception& error) {
    env->ThrowNew(env->FindClass("java/lang/RuntimeException"), error.what());
  }
}
}  // namespace infinilm_java
%}

// Java has no lock to release.
#define INFINILM_LONG_CALLS
#define INFINILM_SHORT_CALLS

%include "../common/exceptions.i"

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm::default_frontend();
}

%include "../common/core.i"
