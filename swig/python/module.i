// The entry file of the Python module: infinilm/engine.py and infinilm/_engine.abi3.so.
%module(package="infinilm", threads="1", docstring="The C++ engine, wrapped by SWIG. Use the names of `infinilm`.") engine

%begin %{
#include "support/gil.hpp"
%}
%nothread;
%include "../common/headers.i"
%include "macros.i"
%include "../common/exceptions.i"
%include "typemaps.i"
%include "callbacks.i"
%include "arrays.i"
%include "classes.i"
%include "../common/core.i"
%include "functions.i"
