// Tables: sequences (token ids: one or several), mappings, and nil for what is not there.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/scalars.hpp"

namespace infinilm_lua {

// The length of a table that has the keys 1 to n and no others; an error else.
inline bool to_length(lua_State* L, int table, const std::string& field, const char* expected,
                      std::size_t& length) {
  if (!lua_istable(L, table)) return type_error(L, table, field, expected);
  length = lua_rawlen(L, table);
  std::size_t keys = 0;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) ++keys;
  if (keys == length) return true;
  push_error(L, "TypeError",
             field + " must be " + expected + ", not a table with holes or other keys");
  return false;
}

// Each element by `convert(L, index, "field[i]", value)`; i counts from 1, as in Lua.
template <class Value, class Convert>
bool to_vector(lua_State* L, int index, const std::string& field, const char* expected,
               std::vector<Value>& values, Convert convert) {
  const int table = lua_absindex(L, index);
  std::size_t length = 0;
  if (!to_length(L, table, field, expected, length)) return false;
  std::vector<Value> result(length);
  for (std::size_t i = 0; i < length; ++i) {
    lua_rawgeti(L, table, static_cast<lua_Integer>(i + 1));
    if (!convert(L, lua_gettop(L), field + "[" + std::to_string(i + 1) + "]", result[i]))
      return false;
    lua_pop(L, 1);
  }
  values = std::move(result);
  return true;
}

template <class Value>
bool to_value(lua_State* L, int index, const std::string& field, std::vector<Value>& values) {
  return to_vector(L, index, field, "a sequence", values,
                   [](lua_State* state, int item, const std::string& name, Value& value) {
                     return to_value(state, item, name, value);
                   });
}

// Without the element's name, which most never need.
inline bool to_ids(lua_State* L, int index, const std::string& field, const char* expected,
                   std::vector<std::int64_t>& values) {
  const int table = lua_absindex(L, index);
  std::size_t length = 0;
  if (!to_length(L, table, field, expected, length)) return false;
  std::vector<std::int64_t> result(length);
  for (std::size_t i = 0; i < length; ++i) {
    lua_rawgeti(L, table, static_cast<lua_Integer>(i + 1));
    if (!lua_isinteger(L, -1))
      return type_error(L, -1, field + "[" + std::to_string(i + 1) + "]", "an integer");
    result[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  values = std::move(result);
  return true;
}

// Token ids and shapes: an integer or a sequence of them.
inline bool to_token_ids(lua_State* L, int index, const std::string& field,
                         std::vector<std::int64_t>& values) {
  static constexpr const char* kExpected = "an integer or a sequence of integers";
  if (lua_istable(L, index)) return to_ids(L, index, field, kExpected, values);
  if (!lua_isinteger(L, index)) return type_error(L, index, field, kExpected);
  values = {lua_tointeger(L, index)};
  return true;
}

inline bool to_token_id_lists(lua_State* L, int index, const std::string& field,
                              std::vector<std::vector<std::int64_t>>& values) {
  return to_vector(
      L, index, field, "a sequence of sequences of integers", values,
      [](lua_State* state, int item, const std::string& name, std::vector<std::int64_t>& ids) {
        return to_ids(state, item, name, "a sequence of integers", ids);
      });
}

template <class Value>
bool to_value(lua_State* L, int index, const std::string& field,
              std::map<std::string, Value>& values) {
  const int table = lua_absindex(L, index);
  if (!lua_istable(L, table)) return type_error(L, index, field, "a table");
  std::map<std::string, Value> result;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    const int item = lua_gettop(L);
    std::string name;
    Value value{};
    if (!to_value(L, item - 1, "a key of " + field, name)) return false;
    if (!to_value(L, item, field + "[\"" + name + "\"]", value)) return false;
    result.insert_or_assign(std::move(name), std::move(value));
  }
  values = std::move(result);
  return true;
}

template <class Value>
bool to_value(lua_State* L, int index, const std::string& field, std::optional<Value>& value) {
  value.reset();
  if (lua_isnil(L, index)) return true;
  return to_value(L, index, field, value.emplace());
}

template <class Value>
void from_value(lua_State* L, const std::vector<Value>& values) {
  lua_createtable(L, static_cast<int>(values.size()), 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    from_value(L, values[i]);
    lua_rawseti(L, -2, static_cast<lua_Integer>(i + 1));
  }
}

template <class Value>
void from_value(lua_State* L, const std::map<std::string, Value>& values) {
  lua_createtable(L, 0, static_cast<int>(values.size()));
  for (const auto& [name, value] : values) {
    from_value(L, name);
    from_value(L, value);
    lua_rawset(L, -3);
  }
}

template <class Value>
void from_value(lua_State* L, const std::optional<Value>& value) {
  if (value) {
    from_value(L, *value);
  } else {
    lua_pushnil(L);
  }
}

}  // namespace infinilm_lua
