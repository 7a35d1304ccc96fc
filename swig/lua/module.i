// The entry file of a Lua module: so far a proof that swig/common wraps into a second language (`tox -e languages`
// generates from it). What a finished language supplies on top is listed in swig/common/README.md.
%module infinilm

%include <stdint.i>
%include <std_string.i>
%apply size_t { std::size_t };

%include "../common/headers.i"

// In a catch clause: an error with the exception's text.
#define INFINILM_RAISE \
  SWIG_Lua_pushferrstring(L, "%s", infinilm_lua::message().c_str()); \
  SWIG_fail;
%{
#include <exception>
#include <string>

namespace infinilm_lua {
// The text of the exception that is being handled.
inline std::string message() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  }
}
}  // namespace infinilm_lua
%}

// Lua has no lock to release.
#define INFINILM_LONG_CALLS
#define INFINILM_SHORT_CALLS

%include "../common/exceptions.i"

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm::default_frontend();
}

%include "../common/core.i"
