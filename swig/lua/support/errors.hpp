// Errors: the core's as tables with a kind and a message, those of scripts as the values that they raised.
#pragma once

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "infinilm/error.hpp"
#include "support/state.hpp"

namespace infinilm_lua {

// Keys of the Lua registry are the addresses of these.
inline char error_metatable, layer_sources;

// Whether the function at this level belongs to the Lua half of this binding (see `internal`).
inline bool is_internal(lua_State* L, const lua_Debug& call) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_sources);
  const bool found = lua_istable(L, -1) && lua_getfield(L, -1, call.source) != LUA_TNIL;
  lua_pop(L, found ? 2 : lua_istable(L, -1) ? 1 : 2);
  return found;
}

// Pushes "file:line: " of the user's call, or "" if there is none.
inline void push_where(lua_State* L) {
  lua_Debug call;
  for (int level = 0; lua_getstack(L, level, &call); ++level) {
    lua_getinfo(L, "Sl", &call);
    if (call.currentline < 0 || is_internal(L, call)) continue;
    lua_pushfstring(L, "%s:%d: ", call.short_src, call.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

// Pushes {kind = "ValueError", message = …, where = "script.lua:3: "}, which prints as "script.lua:3: ValueError: …".
inline void push_error(lua_State* L, const char* kind, const std::string& message) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, kind);
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, message.data(), message.size());
  lua_setfield(L, -2, "message");
  push_where(L);
  lua_setfield(L, -2, "where");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &error_metatable);
  lua_setmetatable(L, -2);
}

inline int error_to_string(lua_State* L) {
  lua_settop(L, 1);
  if (!lua_istable(L, 1)) return 0;
  lua_getfield(L, 1, "where");
  lua_getfield(L, 1, "kind");
  lua_pushliteral(L, ": ");
  lua_getfield(L, 1, "message");
  lua_concat(L, 4);
  return 1;
}

inline int error_concat(lua_State* L) {
  luaL_tolstring(L, 1, nullptr);
  luaL_tolstring(L, 2, nullptr);
  lua_concat(L, 2);
  return 1;
}

inline void register_errors(lua_State* L) {
  lua_createtable(L, 0, 3);
  lua_pushliteral(L, "infinilm.Error");
  lua_setfield(L, -2, "__name");
  lua_pushcfunction(L, error_to_string);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, error_concat);
  lua_setfield(L, -2, "__concat");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_metatable);
  lua_createtable(L, 0, 4);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &layer_sources);
}

// A value that C++ keeps. Taken from the top of the stack.
class Reference {
 public:
  explicit Reference(lua_State* L) : main_(main_state(L)), index_(luaL_ref(L, LUA_REGISTRYINDEX)) {}
  ~Reference() { luaL_unref(living_state(main_), LUA_REGISTRYINDEX, index_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

  void push(lua_State* L) const { lua_rawgeti(L, LUA_REGISTRYINDEX, index_); }

 private:
  lua_State* main_;
  int index_;
};

// What a script raised inside of a callback, on its way through the core.
class LuaError : public std::exception {
 public:
  explicit LuaError(lua_State* L) : value_(std::make_shared<const Reference>(L)) {}
  const char* what() const noexcept override { return "a Lua error"; }
  void push(lua_State* L) const { value_->push(L); }

 private:
  std::shared_ptr<const Reference> value_;  // exceptions are copied
};

// Pushes the error value for the exception that is being handled.
inline void push_error_from_exception(lua_State* L) {
  try {
    throw;
  } catch (const LuaError& e) {
    e.push(L);
  } catch (const infinilm::ValueError& e) {
    push_error(L, "ValueError", e.what());
  } catch (const infinilm::TypeError& e) {
    push_error(L, "TypeError", e.what());
  } catch (const infinilm::IndexError& e) {
    push_error(L, "IndexError", e.what());
  } catch (const infinilm::KeyError& e) {
    push_error(L, "KeyError", e.what());
  } catch (const infinilm::OverflowError& e) {
    push_error(L, "OverflowError", e.what());
  } catch (const infinilm::FileNotFoundError& e) {
    push_error(L, "FileNotFoundError", e.what());
  } catch (const infinilm::OsError& e) {
    push_error(L, "OSError", e.what());
  } catch (const infinilm::Cancelled& e) {
    push_error(L, "Cancelled", e.what());
  } catch (const std::bad_alloc&) {
    push_error(L, "MemoryError", "out of memory in the engine");
  } catch (const std::exception& e) {
    push_error(L, "RuntimeError", e.what());
  }
}

// Runs `body(L)`, which may raise Lua errors and so must own nothing in C++, and throws what it raised.
template <class Body>
void protect(lua_State* L, Body body) {
  infinilm::check<infinilm::Error>(lua_checkstack(L, LUA_MINSTACK), "the Lua stack is full");
  lua_pushcfunction(L, [](lua_State* inner) {
    Body& call = *static_cast<Body*>(lua_touserdata(inner, 1));
    lua_settop(inner, 0);
    call(inner);
    return 0;
  });
  lua_pushlightuserdata(L, &body);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) throw LuaError(L);
}

}  // namespace infinilm_lua
