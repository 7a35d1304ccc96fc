// The macros that swig/common expects of every language.
%{
#include "support/module.hpp"
%}

// In a catch clause: leaves the wrapper with the error value on top of the stack.
#define INFINILM_RAISE infinilm_lua::push_error_from_exception(L); SWIG_fail;

// Lua has no lock to release.
#define INFINILM_LONG_CALLS
#define INFINILM_SHORT_CALLS

// What SWIG's wrappers are written in terms of, by our means: an error is returned to `run` instead of raised, so that
// destructors run; texts become error values with a kind; new objects get our metatables.
%{
#undef lua_call
#define lua_call(L, arguments, results) return infinilm_lua::construct(L)
#define lua_error(L) return infinilm_lua::kRaise
#define SWIG_Lua_pusherrstring(L, text) infinilm_lua::push_error(L, "TypeError", text)
#undef SWIG_NewPointerObj
#define SWIG_NewPointerObj(L, pointer, type, own) \
  infinilm_lua::push_proxy(L, const_cast<void*>(static_cast<const void*>(pointer)), type, own)
#undef SWIG_check_num_args
#define SWIG_check_num_args(function, least, most) \
  if (!infinilm_lua::check_count(L, function, least, most)) SWIG_fail
#undef SWIG_fail_arg
#define SWIG_fail_arg(function, number, type)                  \
  {                                                            \
    infinilm_lua::push_argument_error(L, function, number, type); \
    goto fail;                                                 \
  }

namespace infinilm_lua {

// A class was called: the table of the class, which SWIG puts its constructor in place of, comes first.
inline int construct(lua_State* L) {
  const lua_CFunction constructor = lua_tocfunction(L, 1);
  lua_remove(L, 1);
  return constructor(L);
}

// "Tensor:reshape" for "infinilm::Tensor::reshape".
inline std::string plain_function(std::string name) {
  if (name.starts_with("infinilm")) name.erase(0, name.find("::") + 2);
  if (const std::size_t scope = name.find("::"); scope != std::string::npos) name.erase(scope, 1);
  return name;
}

inline bool check_count(lua_State* L, const char* function, int least, int most) {
  const int found = lua_gettop(L);
  if (found >= least && found <= most) return true;
  push_error(L, "TypeError",
             infinilm::concat(plain_function(function), " expects ", least,
                              most > least ? " or more" : "",
                              " arguments (the object before a colon counts), found ", found));
  return false;
}

inline void push_argument_error(lua_State* L, const char* function, int number, const char* type) {
  push_error(L, "TypeError",
             infinilm::concat("argument ", number, " of ", function, " must be a ",
                              plain_type(type), ", not ", type_name(L, number)));
}

}  // namespace infinilm_lua
%}
