// The way into the engine: every function that scripts can call goes through `run`.
#pragma once

#include <string>

#include "support/proxies.hpp"

namespace infinilm_lua {

// SWIG takes any userdata for one of its own; what is none, or was closed, is refused here.
inline bool check_arguments(lua_State* L) {
  for (int i = 1; i <= lua_gettop(L); ++i) {
    if (!lua_isuserdata(L, i)) continue;
    const Header* header = to_header(L, i);
    if (header && header->ptr) continue;
    const std::string what = header ? "a " + type_name(L, i) + " that was closed"
                                    : "a userdata that is none of infinilm's";
    push_error(L, header ? "RuntimeError" : "TypeError",
               "argument " + std::to_string(i) + " is " + what);
    return false;
  }
  return true;
}

inline int call_wrapper(lua_State* L, lua_CFunction wrapper) {
  const Running here(L);
  if (!check_arguments(L)) return kRaise;
  try {
    return wrapper(L);
  } catch (
      const std::
          exception&) {  // out of memory in a typemap; not (...): threads end by forced unwinding
    push_error_from_exception(L);
    return kRaise;
  }
}

inline int run(lua_State* L, lua_CFunction wrapper) {
  const int results = call_wrapper(L, wrapper);
  return results == kRaise ? lua_error(L) : results;
}

// A function of the module: upvalue 1 is the wrapper.
inline int call_function(lua_State* L) { return run(L, lua_tocfunction(L, lua_upvalueindex(1))); }

// A method: SWIG takes nil for a null object, and would follow it.
inline int call_method(lua_State* L) {
  if (!to_header(L, 1)) {
    push_error(L, "TypeError",
               "expected an object before the colon, found " +
                   std::string(lua_isnone(L, 1) ? "nothing" : type_name(L, 1)));
    return lua_error(L);
  }
  return call_function(L);
}

inline void push_function(lua_State* L, lua_CFunction wrapper, lua_CFunction caller) {
  lua_pushcfunction(L, wrapper);
  lua_pushcclosure(L, caller, 1);
}

}  // namespace infinilm_lua
