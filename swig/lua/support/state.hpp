// How C++ and Lua call each other without either jumping over the other's clean-up.
#pragma once

#include "support/lua.hpp"

namespace infinilm_lua {

// What a wrapper returns when it leaves an error value on top of the stack. `run` (calls.hpp) raises it once the
// wrapper's C++ objects are gone: lua_error inside of the wrapper would jump over their destructors.
inline constexpr int kRaise = -1;

// The state (a coroutine or the main one) whose script called the engine on this thread.
inline thread_local lua_State* running = nullptr;

class Running {
 public:
  explicit Running(lua_State* L) : before_(running) { running = L; }
  ~Running() { running = before_; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  lua_State* before_;
};

inline lua_State* main_state(lua_State* L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State* main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

// A state to clean up with: the coroutine that made an object may be gone when it dies.
inline lua_State* living_state(lua_State* main) {
  return running && main_state(running) == main ? running : main;
}

}  // namespace infinilm_lua
