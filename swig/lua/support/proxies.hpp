// Objects of the core as userdata. All begin with SWIG's header, so that a look at the metatable is enough before
// SWIG's conversions trust it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include "infinilm/capture.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"
#include "infinilm/tensor.hpp"
#include "support/errors.hpp"

namespace infinilm_lua {

using Header = swig_lua_userdata;

inline char object_mark;  // in each of our metatables

// "LlamaConfig" for "infinilm::LlamaConfig const &" and "std::shared_ptr< infinilm::KvCache > *".
inline std::string plain_type(const char* type) {
  std::string name = type ? type : "object";
  if (const std::size_t scope = name.rfind("infinilm::"); scope != std::string::npos)
    name.erase(0, scope + 10);
  return name.substr(0, name.find_first_of(" &*>"));
}

// The header of one of our objects; null for anything else.
inline Header* to_header(lua_State* L, int index) {
  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index)) return nullptr;
  lua_rawgetp(L, -1, &object_mark);
  const bool ours = lua_toboolean(L, -1) != 0;
  lua_pop(L, 2);
  return ours ? static_cast<Header*>(lua_touserdata(L, index)) : nullptr;
}

inline std::string type_name(lua_State* L, int index) {
  if (const Header* header = to_header(L, index)) return plain_type(header->type->str);
  if (lua_type(L, index) == LUA_TNUMBER) return lua_isinteger(L, index) ? "integer" : "float";
  return lua_typename(L, lua_type(L, index));
}

// Pushes an object whose metatable the registry has under `key`, with room for one table (see `push_kept`).
template <class Object>
Object* push_object(lua_State* L, const void* key) {
  auto* object = static_cast<Object*>(lua_newuserdatauv(L, sizeof(Object), 1));
  lua_rawgetp(L, LUA_REGISTRYINDEX, key);
  lua_setmetatable(L, -2);
  return object;
}

inline void push_proxy(lua_State* L, void* pointer, swig_type_info* type, int own) {
  if (!pointer) return lua_pushnil(L);
  *push_object<Header>(L, type->clientdata) = {type, own, pointer};
}

// Pushes the table of what an object keeps alive.
inline void push_kept(lua_State* L, int index) {
  index = lua_absindex(L, index);
  if (lua_getiuservalue(L, index, 1) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, index, 1);
}

// Lua's collector sees some bytes where a tensor holds megabytes: it is told of the others, as of memory of its own.
inline void account_for(lua_State* L, const infinilm::Tensor& tensor) {
  static thread_local std::size_t untold = 0;
  untold += tensor.nbytes();
  const std::size_t kilobytes = untold / 1024;
  if (kilobytes == 0 || !lua_gc(L, LUA_GCISRUNNING)) return;
  untold %= 1024;
  lua_gc(L, LUA_GCSTEP, static_cast<int>(std::min<std::size_t>(kilobytes, 1 << 30)));
}

// A userdata of its own for a copy of the value.
void from_value(lua_State* L, const infinilm::Tensor& value);
void from_value(lua_State* L, const infinilm::Captured& value);
void from_value(lua_State* L, const infinilm::CudaDevice& value);
void from_value(lua_State* L, const infinilm::HookPoint& value);
void from_value(lua_State* L, const infinilm::HookPointPattern& value);
void from_value(lua_State* L, const infinilm::ParameterInfo& value);
void from_value(lua_State* L, const infinilm::StepSequence& value);

// A Tensor.
bool to_value(lua_State* L, int index, const std::string& field, infinilm::Tensor& value);
// A Device or its name.
bool to_value(lua_State* L, int index, const std::string& field, infinilm::Device& value);

}  // namespace infinilm_lua
