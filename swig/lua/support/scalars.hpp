// Numbers, text, names of dtypes. `to_value` reads the value at an index of the stack, or pushes an error and returns false.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>

#include "support/proxies.hpp"

namespace infinilm_lua {

// "TypeError: vocab_size must be an integer, not float"
inline bool type_error(lua_State* L, int index, const std::string& field, const char* expected) {
  push_error(L, "TypeError", field + " must be " + expected + ", not " + type_name(L, index));
  return false;
}

template <std::integral Integer>
bool to_value(lua_State* L, int index, const std::string& field, Integer& value) {
  if (!lua_isinteger(L, index)) return type_error(L, index, field, "an integer");
  const lua_Integer wide = lua_tointeger(L, index);
  if constexpr (std::unsigned_integral<Integer>) {
    if (wide < 0) {
      push_error(L, "ValueError", field + " must not be negative, found " + std::to_string(wide));
      return false;
    }
  } else if (wide < std::numeric_limits<Integer>::min() ||
             wide > std::numeric_limits<Integer>::max()) {
    push_error(L, "OverflowError",
               field + " must be a 32-bit integer, found " + std::to_string(wide));
    return false;
  }
  value = static_cast<Integer>(wide);
  return true;
}

inline bool to_value(lua_State* L, int index, const std::string& field, bool& value) {
  if (!lua_isboolean(L, index)) return type_error(L, index, field, "a boolean");
  value = lua_toboolean(L, index) != 0;
  return true;
}

inline bool to_value(lua_State* L, int index, const std::string& field, double& value) {
  if (lua_type(L, index) != LUA_TNUMBER) return type_error(L, index, field, "a number");
  value = lua_tonumber(L, index);
  return true;
}

inline bool to_value(lua_State* L, int index, const std::string& field, float& value) {
  double wide = 0;
  if (!to_value(L, index, field, wide)) return false;
  value = static_cast<float>(wide);
  return true;
}

inline bool to_value(lua_State* L, int index, const std::string& field, std::string& value) {
  if (lua_type(L, index) != LUA_TSTRING) return type_error(L, index, field, "a string");
  std::size_t size = 0;
  const char* text = lua_tolstring(L, index, &size);
  value.assign(text, size);
  return true;
}

inline bool to_value(lua_State* L, int index, const std::string& field, infinilm::DataType& value) {
  if (lua_type(L, index) != LUA_TSTRING)
    return type_error(L, index, field, "the name of a dtype, such as \"float32\"");
  try {
    value = infinilm::parse_dtype(lua_tostring(L, index));
    return true;
  } catch (const std::exception& e) {
    push_error(L, "ValueError", field + ": " + e.what());
    return false;
  }
}

inline void from_value(lua_State* L, bool value) { lua_pushboolean(L, value); }
inline void from_value(lua_State* L, double value) { lua_pushnumber(L, value); }
inline void from_value(lua_State* L, std::string_view value) {
  lua_pushlstring(L, value.data(), value.size());
}
inline void from_value(lua_State* L, const std::string& value) {
  from_value(L, std::string_view(value));
}
inline void from_value(lua_State* L, infinilm::DataType value) {
  from_value(L, infinilm::name_of(value));
}
template <std::integral Integer>
void from_value(lua_State* L, Integer value) {
  lua_pushinteger(L, static_cast<lua_Integer>(value));
}

}  // namespace infinilm_lua
