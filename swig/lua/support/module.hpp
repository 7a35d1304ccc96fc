// The module infinilm.engine: SWIG's functions and classes, and what the Lua half of the binding (bindings/lua) needs.
#pragma once

#include <cctype>

#include "support/classes.hpp"

namespace infinilm_lua {

// Tables of members for the class called `name`: extend(name, {getters=, setters=, methods=, metamethods=}).
inline int extend(lua_State* L) {
  static constexpr const char* kParts[] = {"getters", "setters", "methods"};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &classes);
  if (lua_getfield(L, -1, luaL_checkstring(L, 1)) != LUA_TTABLE)
    return luaL_error(L, "no class of this name");
  const int metatable = lua_gettop(L);
  for (int part = 0; part < 4; ++part) {
    if (part < 3) {
      lua_rawgeti(L, metatable, part + 1);
    } else {
      lua_pushvalue(L, metatable);
    }
    const int target = lua_gettop(L);
    if (lua_getfield(L, 2, part < 3 ? kParts[part] : "metamethods") == LUA_TTABLE) {
      for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, target);
      }
    }
    lua_settop(L, metatable);
  }
  return 0;
}

// kept(object): the table of what an object keeps alive.
inline int kept(lua_State* L) {
  if (!to_header(L, 1)) return luaL_argerror(L, 1, "an object of the engine");
  push_kept(L, 1);
  return 1;
}

// internal(): lines of the calling file are not where a user's error is.
inline int internal(lua_State* L) {
  lua_Debug call;
  if (!lua_getstack(L, 1, &call)) return 0;
  lua_getinfo(L, "S", &call);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_sources);
  lua_pushboolean(L, true);
  lua_setfield(L, -2, call.source);
  return 0;
}

// type(value): the name of an object's class, nil for anything else.
inline int type_of(lua_State* L) {
  if (!to_header(L, 1)) return 0;
  from_value(L, type_name(L, 1));
  return 1;
}

// is_callable(value): a function, or what has __call.
inline int callable(lua_State* L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, is_callable(L, 1));
  return 1;
}

// fail(kind, message): raises an error of the engine's form.
inline int fail(lua_State* L) {
  push_error(L, luaL_checkstring(L, 1), luaL_checkstring(L, 2));
  return lua_error(L);
}

inline int set_warning_handler(lua_State* L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &warning_handler);
  return 0;
}

// SWIG's constructors expect the class's table as first argument, in whose place they put the wrapper (see macros.i).
inline int call_constructor(lua_State* L) {
  lua_newtable(L);
  lua_insert(L, 1);
  return call_function(L);
}

// Classes get a table of their static functions, `new` where there is a constructor, and `methods`.
inline void push_statics(lua_State* L, const swig_lua_class& from) {
  lua_newtable(L);
  lua_newtable(L);
  for (const swig_lua_method* method = from.methods; method->name; ++method) {
    push_function(L, method->func, call_method);
    lua_setfield(L, -2, method->name);
  }
  lua_setfield(L, -2, "methods");
  for (const swig_lua_method* f = from.cls_static->ns_methods; f->name; ++f) {
    push_function(L, f->func, call_function);
    lua_setfield(L, -2, f->name);
  }
  if (!from.constructor) return;
  push_function(L, from.constructor, call_constructor);
  lua_setfield(L, -2, "new");
}

// Pushes the module. SWIG's own registration stays out of scripts' reach.
inline void open(lua_State* L, const swig_lua_namespace& module) {
  for (const char* name : {"swig_type", "swig_equals"}) {  // these trust any userdata
    lua_pushnil(L);
    lua_setglobal(L, name);
  }
  register_errors(L);
  register_callbacks(L);
  register_views(L);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &classes);

  lua_newtable(L);
  for (swig_lua_class** c = module.ns_classes; *c; ++c) {
    register_class(L, **c);
    push_statics(L, **c);
    lua_setfield(L, -2, (*c)->name);
  }
  for (const swig_lua_method* f = module.ns_methods; f->name; ++f) {
    if (std::isupper(static_cast<unsigned char>(f->name[0])))
      continue;  // "LlamaConfig_from_json": the class has it
    push_function(L, f->func, call_function);
    lua_setfield(L, -2, f->name);
  }
  push_function(L, view_of_tensor, call_function);
  lua_setfield(L, -2, "view");
  push_function(L, tensor_totable, call_function);
  lua_setfield(L, -2, "totable");
  push_function(L, new_tensor, call_function);
  lua_setfield(L, -2, "tensor");
  static constexpr luaL_Reg kHelpers[] = {
      {"extend", extend},        {"kept", kept},
      {"internal", internal},    {"fail", fail},
      {"type", type_of},         {"set_warning_handler", set_warning_handler},
      {"is_callable", callable}, {nullptr, nullptr}};
  luaL_setfuncs(L, kHelpers, 0);
}

}  // namespace infinilm_lua
