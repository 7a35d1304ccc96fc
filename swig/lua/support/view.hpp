// A tensor's elements as `view[i][j]`: the memory itself, with a check of every index. Indices count from 1.
#pragma once

#include <cstdint>
#include <new>
#include <string>

#include "support/calls.hpp"
#include "support/elements.hpp"

namespace infinilm_lua {

inline char view_metatable;  // key of the Lua registry

// The userdata: all of a tensor, or a part of it with the leading dimensions fixed.
struct View {
  Header header;
  std::byte* data;
  std::size_t dimension;  // the first that is left
  alignas(infinilm::Tensor) std::byte storage[sizeof(infinilm::Tensor)];

  const infinilm::Tensor& tensor() const {
    return *static_cast<const infinilm::Tensor*>(header.ptr);
  }
  std::size_t dimensions() const { return tensor().shape().size() - dimension; }
  std::int64_t length() const { return tensor().shape()[dimension]; }
  std::byte* at(std::int64_t i) const {
    const auto step =
        static_cast<std::int64_t>(tensor().itemsize()) * tensor().strides()[dimension];
    return data + i * step;
  }
};

// Only its name is used: it is none of SWIG's classes.
inline swig_type_info view_type = {
    "_p_infinilm__View", "infinilm::View *", nullptr, nullptr, nullptr, 0};

inline View* to_view(lua_State* L, int index) {
  Header* header = to_header(L, index);
  return header && header->type == &view_type ? reinterpret_cast<View*>(header) : nullptr;
}

inline void push_view(lua_State* L, const infinilm::Tensor& tensor, std::byte* data,
                      std::size_t dimension) {
  View* view = push_object<View>(L, &view_metatable);
  view->header = {&view_type, 1, new (view->storage) infinilm::Tensor(tensor)};
  view->data = data;
  view->dimension = dimension;
}

inline bool check_writable(lua_State* L, const infinilm::Tensor& tensor) {
  if (!tensor.read_only()) return true;
  push_error(L, "ValueError", "this tensor is read-only: clone() gives one that is not");
  return false;
}

// The address of element or row `key` of the view; null with an error.
inline std::byte* address(lua_State* L, const View& view, int key) {
  if (!lua_isinteger(L, key)) {
    type_error(L, key, "an index", "an integer");
    return nullptr;
  }
  const lua_Integer i = lua_tointeger(L, key);
  if (i >= 1 && i <= view.length()) return view.at(i - 1);
  push_error(L, "IndexError",
             infinilm::concat("index ", i, " is outside of 1 to ", view.length(), ", dimension ",
                              view.dimension + 1, " of ", infinilm::str_of(view.tensor().shape())));
  return nullptr;
}

inline View* self_view(lua_State* L) {
  View* view = to_view(L, 1);
  if (!view) type_error(L, 1, "the object before the colon", "a View");
  return view;
}

// view[i]: a number, or a view of what is left; view.fill: a method (upvalue 2).
inline int index_view(lua_State* L) {
  const View* view = self_view(L);
  if (!view) return kRaise;
  const std::byte* data = address(L, *view, 2);
  if (!data) return kRaise;
  if (view->dimensions() > 1) {
    push_view(L, view->tensor(), const_cast<std::byte*>(data), view->dimension + 1);
    return 1;
  }
  return push_element(L, view->tensor().dtype(), data) || dtype_error(L, view->tensor()) ? 1
                                                                                         : kRaise;
}

inline int set_view(lua_State* L) {
  const View* view = self_view(L);
  if (!view || !check_writable(L, view->tensor())) return kRaise;
  std::byte* data = address(L, *view, 2);
  return data && store_values(L, 3, view->tensor(), data, view->dimension + 1, false) ? 0 : kRaise;
}

inline int view_length(lua_State* L) {
  const View* view = self_view(L);
  if (!view) return kRaise;
  from_value(L, view->length());
  return 1;
}

// view:fill(value): writes it to every element.
inline int fill_view(lua_State* L) {
  const View* view = self_view(L);
  if (!view || !check_writable(L, view->tensor())) return kRaise;
  return store_values(L, 2, view->tensor(), view->data, view->dimension, true) ? 0 : kRaise;
}

// view:assign(values): writes tables of tables of the view's shape.
inline int assign_view(lua_State* L) {
  const View* view = self_view(L);
  if (!view || !check_writable(L, view->tensor())) return kRaise;
  return store_values(L, 2, view->tensor(), view->data, view->dimension, false) ? 0 : kRaise;
}

inline int view_totable(lua_State* L) {
  const View* view = self_view(L);
  return view && push_values(L, view->tensor(), view->data, view->dimension) ? 1 : kRaise;
}

// The step of `for i, x in pairs(view)`: (view, i) to i + 1 and what is there.
inline int next_of_view(lua_State* L) {
  const View* view = self_view(L);
  if (!view) return kRaise;
  if (!lua_isinteger(L, 2)) return type_error(L, 2, "an index", "an integer"), kRaise;
  const lua_Integer i = lua_tointeger(L, 2);
  lua_settop(L, 1);
  if (i >= view->length()) return 0;
  lua_pushinteger(L, i + 1);
  lua_pushvalue(L, -1);
  return index_view(L) == kRaise ? kRaise : 2;
}

inline int pairs_of_view(lua_State* L) {
  if (!self_view(L)) return kRaise;
  push_function(L, next_of_view, call_function);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 0);
  return 3;
}

inline int collect_view(lua_State* L) {
  if (View* view = to_view(L, 1); view && view->header.ptr) {
    view->header.ptr = nullptr;
    reinterpret_cast<infinilm::Tensor*>(view->storage)->~Tensor();
  }
  return 0;
}

// What `view[key]` calls: methods by name, elements by number.
inline int index_view_or_method(lua_State* L) {
  if (lua_type(L, 2) != LUA_TSTRING) return call_function(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  push_error(L, "AttributeError", "a view has no method of this name: fill, assign, totable");
  return lua_error(L);
}

// tensor:view(): the elements. Tensors without dimensions have `item` instead.
inline int view_of_tensor(lua_State* L) {
  infinilm::Tensor tensor;
  if (!to_value(L, 1, "view", tensor)) return kRaise;
  infinilm::check<infinilm::TypeError>(!tensor.shape().empty(),
                                       "a tensor without dimensions has no view: use item()");
  infinilm::check<infinilm::TypeError>(tensor.device() == infinilm::Device(), "the tensor is on ",
                                       tensor.device().str(),
                                       ": use to(\"cpu\") for a copy that Lua can read");
  push_view(L, tensor, tensor.data(), 0);
  return 1;
}

// tensor:totable(): the elements as numbers in tables of tables.
inline int tensor_totable(lua_State* L) {
  infinilm::Tensor tensor;
  if (!to_value(L, 1, "totable", tensor)) return kRaise;
  tensor = tensor.to(infinilm::Device());
  return push_values(L, tensor, tensor.data(), 0) ? 1 : kRaise;
}

// tensor(values, dtype = "float32"): a new tensor of the shape of tables of tables.
inline int new_tensor(lua_State* L) {
  infinilm::DataType dtype = infinilm::DataType::F32;
  if (!lua_isnoneornil(L, 2) && !to_value(L, 2, "dtype", dtype)) return kRaise;
  infinilm::Shape shape;
  lua_pushvalue(L, 1);
  while (lua_istable(L, -1)) {
    infinilm::check(shape.size() < 8, "expected at most 8 dimensions");
    shape.push_back(static_cast<std::int64_t>(lua_rawlen(L, -1)));
    lua_rawgeti(L, -1, 1);
    lua_replace(L, -2);
  }
  const infinilm::Tensor tensor = infinilm::Tensor::empty(shape, dtype);
  if (!store_values(L, 1, tensor, tensor.data(), 0, false)) return kRaise;
  from_value(L, tensor);
  return 1;
}

inline void register_views(lua_State* L) {
  lua_createtable(L, 0, 8);
  lua_pushcfunction(L, index_view);
  lua_createtable(L, 0, 3);
  push_function(L, fill_view, call_function);
  lua_setfield(L, -2, "fill");
  push_function(L, assign_view, call_function);
  lua_setfield(L, -2, "assign");
  push_function(L, view_totable, call_function);
  lua_setfield(L, -2, "totable");
  lua_pushcclosure(L, index_view_or_method, 2);
  lua_setfield(L, -2, "__index");
  push_function(L, set_view, call_function);
  lua_setfield(L, -2, "__newindex");
  push_function(L, view_length, call_function);
  lua_setfield(L, -2, "__len");
  push_function(L, pairs_of_view, call_function);
  lua_setfield(L, -2, "__pairs");
  lua_pushcfunction(L, collect_view);
  lua_setfield(L, -2, "__gc");
  lua_pushliteral(L, "infinilm.View");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_pushboolean(L, true);
  lua_rawsetp(L, -2, &object_mark);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &view_metatable);
}

}  // namespace infinilm_lua
