// Lua functions as the core's callbacks, and Lua's part of long calls.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/frontend.hpp"
#include "infinilm/generate.hpp"
#include "support/sequences.hpp"

namespace infinilm_lua {

inline char weak_functions, weak_owners, warning_handler;  // keys of the Lua registry

inline bool is_callable(lua_State* L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (luaL_getmetafield(L, index, "__call") == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

// A function that lives in the table of the object that owns it (`push_kept`) and is known here by a number only, through
// tables with weak values: so Lua's collector sees every cycle through it.
class WeakFunction {
 public:
  // The function at `function`; its owner's table, or nil if something else keeps it, is on top of the stack.
  WeakFunction(lua_State* L, int function) : main_(main_state(L)), number_(++last) {
    const int owner = lua_gettop(L);
    if (lua_istable(L, owner)) {
      lua_pushvalue(L, function);
      lua_rawseti(L, owner, number_);
    }
    remember(L, weak_functions, function);
    remember(L, weak_owners, owner);
  }
  ~WeakFunction() {
    lua_State* L = living_state(main_);
    if (!lua_checkstack(L, 4)) return;
    look_up(L, weak_owners);
    if (lua_istable(L, -1)) {
      lua_pushnil(L);
      lua_rawseti(L, -2, number_);
    }
    lua_pushnil(L);
    remember(L, weak_functions, lua_gettop(L));
    remember(L, weak_owners, lua_gettop(L));
    lua_pop(L, 2);
  }
  WeakFunction(const WeakFunction&) = delete;
  WeakFunction& operator=(const WeakFunction&) = delete;

  // May raise a Lua error.
  void push(lua_State* L) const {
    look_up(L, weak_functions);
    if (!lua_isnil(L, -1)) return;
    push_error(L, "RuntimeError", "the object that held this callback is gone: keep the registry");
    lua_error(L);
  }

 private:
  void remember(lua_State* L, char& table, int value) const {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &table);
    lua_pushvalue(L, value);
    lua_rawseti(L, -2, number_);
    lua_pop(L, 1);
  }
  void look_up(lua_State* L, char& table) const {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &table);
    lua_rawgeti(L, -1, number_);
    lua_remove(L, -2);
  }

  static inline std::atomic<lua_Integer> last = 0;
  lua_State* main_;
  lua_Integer number_;
};

struct Hook {
  std::shared_ptr<WeakFunction> function;

  void operator()(const std::string& name, const infinilm::Tensor& tensor, int layer_idx) const {
    protect(running, [&](lua_State* L) {
      function->push(L);
      from_value(L, name);
      from_value(L, tensor);
      from_value(L, layer_idx);
      lua_call(L, 3, 0);
    });
  }
};

struct Processor {
  std::shared_ptr<WeakFunction> function;

  void operator()(const infinilm::TokenIds& tokens, const infinilm::Tensor& logits) const {
    protect(running, [&](lua_State* L) {
      function->push(L);
      from_value(L, tokens);
      from_value(L, logits);
      lua_call(L, 2, 0);
    });
  }
};

struct Progress {
  std::shared_ptr<Reference> function;  // only for the time of one call

  void operator()(std::size_t done, std::size_t total) const {
    protect(running, [&](lua_State* L) {
      function->push(L);
      from_value(L, done);
      from_value(L, total);
      lua_call(L, 2, 0);
    });
  }
};

// The registry that keeps a hook is the object whose method is called.
inline bool to_value(lua_State* L, int index, const std::string& field,
                     infinilm::HookCallback& value) {
  if (!is_callable(L, index)) return type_error(L, index, field, "a function");
  push_kept(L, 1);
  value = Hook{std::make_shared<WeakFunction>(L, index)};
  lua_pop(L, 1);
  return true;
}

// Whoever makes a generation keeps its processors (bindings/lua). false: none for this prompt.
inline bool to_value(lua_State* L, int index, const std::string& field,
                     std::vector<infinilm::LogitsProcessor>& values) {
  return to_vector(
      L, index, field, "a sequence of functions", values,
      [](lua_State* state, int item, const std::string& name, infinilm::LogitsProcessor& value) {
        if (lua_isboolean(state, item) && !lua_toboolean(state, item)) return true;
        if (!is_callable(state, item)) return type_error(state, item, name, "a function or false");
        lua_pushnil(state);
        value = Processor{std::make_shared<WeakFunction>(state, item)};
        lua_pop(state, 1);
        return true;
      });
}

inline bool to_value(lua_State* L, int index, const std::string& field,
                     infinilm::ProgressCallback& value) {
  if (lua_isnil(L, index)) return true;
  if (!is_callable(L, index)) return type_error(L, index, field, "a function or nil");
  lua_pushvalue(L, index);
  value = Progress{std::make_shared<Reference>(L)};
  return true;
}

// Warnings through the handler of infinilm.set_warning_handler. Ctrl-C: Lua's interpreter sets a debug hook, which the
// call of any function runs.
class LuaFrontend : public infinilm::Frontend {
 public:
  void warn(const std::string& text) override {
    protect(running, [&](lua_State* L) {
      lua_rawgetp(L, LUA_REGISTRYINDEX, &warning_handler);
      from_value(L, text);
      push_where(L);
      lua_call(L, 2, 0);
    });
  }

  // Never true: what the debug hook raised is thrown instead.
  bool interrupted() override {
    protect(running, [](lua_State*) {});
    return false;
  }
};

inline infinilm::Frontend& frontend() {
  static LuaFrontend instance;
  return instance;
}

inline void register_callbacks(lua_State* L) {
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  for (char* key : {&weak_functions, &weak_owners}) {
    lua_newtable(L);
    lua_pushvalue(L, -2);
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
  }
  lua_pop(L, 1);
}

}  // namespace infinilm_lua
