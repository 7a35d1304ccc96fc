// The classes of SWIG's tables as Lua sees them: attributes and methods in one look-up, an error with the nearest name for
// what does not exist, `close`, and metatables that scripts cannot reach.
#pragma once

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
  const char* text = luaL_tolstring(L, 2, nullptr);  // may raise: before there is anything of C++
  std::vector<std::string> names;
  append_keys(L, lua_upvalueindex(kGetters), names);
  append_keys(L, lua_upvalueindex(kMethods), names);
  push_error(L, "AttributeError",
             infinilm::concat(lua_tostring(L, lua_upvalueindex(kClass)), " has no field or method ",
                              infinilm::quoted(std::string_view(text)),
                              "; nearest: ", infinilm::nearest_names(text, names)));
}

inline void push_read_only(lua_State* L) {
  const char* text = luaL_tolstring(L, 2, nullptr);
  push_error(
      L, "AttributeError",
      infinilm::concat(lua_tostring(L, lua_upvalueindex(kClass)), ".", text, " is read-only"));
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

}  // namespace infinilm_lua
