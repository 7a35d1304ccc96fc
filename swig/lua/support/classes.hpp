// The classes and functions of SWIG's tables as Lua sees them: attributes and methods in one look-up, an error with the
// nearest name for what does not exist, `close`, and metatables that scripts cannot reach.
#pragma once

#include <cctype>
#include <string>
#include <vector>

#include "base/nearest.hpp"
#include "support/callbacks.hpp"
#include "support/view.hpp"

namespace infinilm_lua {

inline char classes;  // key of the Lua registry: name -> metatable

inline void append_keys(lua_State* L, int table, std::vector<std::string>& names) {
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING) names.emplace_back(lua_tostring(L, -2));
  }
}

// Upvalues of both accessors: attributes' functions (to get, to set), methods, the name of the class.
enum Upvalue { kGetters = 1, kSetters, kMethods, kClass, kUpvalues = kClass };

inline void push_missing(lua_State* L) {
  std::vector<std::string> names;
  append_keys(L, lua_upvalueindex(kGetters), names);
  append_keys(L, lua_upvalueindex(kMethods), names);
  const std::string found = luaL_tolstring(L, 2, nullptr);
  push_error(L, "AttributeError",
             infinilm::concat(lua_tostring(L, lua_upvalueindex(kClass)), " has no field or method ",
                              infinilm::quoted(found),
                              "; nearest: ", infinilm::nearest_names(found, names)));
}

inline void push_read_only(lua_State* L) {
  push_error(L, "AttributeError",
             infinilm::concat(lua_tostring(L, lua_upvalueindex(kClass)), ".",
                              luaL_tolstring(L, 2, nullptr), " is read-only"));
}

inline int raise_missing(lua_State* L) {
  push_missing(L);
  return lua_error(L);
}

// object.key. An attribute's function is SWIG's or, where the Lua half adds one, Lua's.
inline int get_attribute(lua_State* L) {
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(kGetters)) != LUA_TNIL) {
    if (const lua_CFunction wrapper = lua_tocfunction(L, 3)) {
      lua_settop(L, 1);
      return run(L, wrapper);
    }
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
  }
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(kMethods)) != LUA_TNIL) return 1;
  lua_settop(L, 2);
  return raise_missing(L);
}

// object.key = value
inline int set_attribute(lua_State* L) {
  lua_settop(L, 3);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(kSetters)) != LUA_TNIL) {
    if (const lua_CFunction wrapper = lua_tocfunction(L, 4)) {
      lua_settop(L, 3);
      lua_remove(L, 2);
      return run(L, wrapper);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 0);
    return 0;
  }
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(kGetters)) == LUA_TNIL) {
    lua_settop(L, 2);
    return raise_missing(L);
  }
  push_read_only(L);
  return lua_error(L);
}

inline void destroy(lua_State* L, Header* object) {
  const Running here(L);
  void* pointer = object->ptr;
  object->ptr = nullptr;
  if (pointer && object->own)
    static_cast<swig_lua_class*>(object->type->clientdata)->destructor(pointer);
}

inline int collect_object(lua_State* L) {
  if (Header* object = to_header(L, 1)) destroy(L, object);
  return 0;
}

// object:close(), also of `local object <close>`: frees it now; closing again does nothing.
inline int close_object(lua_State* L) {
  Header* object = to_header(L, 1);
  if (!object || object->type == &view_type) {
    push_error(L, "TypeError", "close expects an object of the engine");
    return lua_error(L);
  }
  if (running && plain_type(object->type->str) != "Tensor") {  // it may be at work below
    push_error(L, "RuntimeError", "only tensors can be closed inside of a callback");
    return lua_error(L);
  }
  destroy(L, object);
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

inline void add_members(lua_State* L, const swig_lua_class& from, int getters, int setters,
                        int methods) {
  for (swig_lua_class** base = from.bases; *base; ++base)
    add_members(L, **base, getters, setters, methods);
  for (const swig_lua_attribute* field = from.attributes; field->name; ++field) {
    lua_pushcfunction(L, field->getmethod);
    lua_setfield(L, getters, field->name);
    if (field->setmethod == SWIG_Lua_set_immutable) continue;
    lua_pushcfunction(L, field->setmethod);
    lua_setfield(L, setters, field->name);
  }
  for (const swig_lua_method* method = from.methods; method->name; ++method) {
    push_function(L, method->func, call_method);
    lua_setfield(L, methods, method->name);
  }
}

inline void set_accessor(lua_State* L, int metatable, const char* name, lua_CFunction function,
                         int first) {
  for (int i = 0; i < kUpvalues; ++i) lua_pushvalue(L, first + i);
  lua_pushcclosure(L, function, kUpvalues);
  lua_setfield(L, metatable, name);
}

inline void register_class(lua_State* L, const swig_lua_class& from) {
  const int first = lua_gettop(L) + 1;
  for (int i = 0; i < 3; ++i) lua_newtable(L);
  lua_pushstring(L, from.name);
  add_members(L, from, first, first + 1, first + 2);
  lua_pushcfunction(L, close_object);
  lua_setfield(L, first + 2, "close");

  lua_newtable(L);
  const int metatable = lua_gettop(L);
  set_accessor(L, metatable, "__index", get_attribute, first);
  set_accessor(L, metatable, "__newindex", set_attribute, first);
  for (int i = 0; i < 3; ++i) {  // for `extend`
    lua_pushvalue(L, first + i);
    lua_rawseti(L, metatable, i + 1);
  }
  lua_pushcfunction(L, collect_object);
  lua_setfield(L, metatable, "__gc");
  lua_pushcfunction(L, close_object);
  lua_setfield(L, metatable, "__close");
  lua_pushfstring(L, "infinilm.%s", from.name);
  lua_setfield(L, metatable, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, metatable, "__metatable");
  lua_pushboolean(L, true);
  lua_rawsetp(L, metatable, &object_mark);

  lua_rawgetp(L, LUA_REGISTRYINDEX, &classes);
  lua_pushvalue(L, metatable);
  lua_setfield(L, -2, from.name);
  lua_pushvalue(L, metatable);
  lua_rawsetp(L, LUA_REGISTRYINDEX, (*from.type)->clientdata);
  lua_settop(L, first - 1);
}

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
      {"extend", extend}, {"kept", kept},    {"internal", internal},
      {"fail", fail},     {"type", type_of}, {"set_warning_handler", set_warning_handler},
      {nullptr, nullptr}};
  luaL_setfuncs(L, kHelpers, 0);
}

}  // namespace infinilm_lua
