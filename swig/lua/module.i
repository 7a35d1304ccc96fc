// The entry file of the Lua module infinilm.engine; `require "infinilm"` (bindings/lua) is what scripts use.
%module infinilm_engine

%feature("compactdefaultargs");  // one wrapper for each function, whose arguments can be told apart by number alone

%include "../common/headers.i"
%include "macros.i"
%include "../common/exceptions.i"
%include "typemaps.i"
%include "callbacks.i"
%include "../common/core.i"

// The module that `require` gives: SWIG returns what is on top of the stack.
%init %{
  infinilm_lua::open(L, swig_SwigModule);
%}
