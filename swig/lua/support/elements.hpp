// Elements of tensors as Lua's numbers and back, one by one and as tables of tables.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "support/sequences.hpp"

namespace infinilm_lua {

struct BFloat16 {
  std::uint16_t bits;
  explicit operator double() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

struct Float16 {
  std::uint16_t bits;
  explicit operator double() const {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const double size = exponent == 0   ? std::ldexp(fraction, -24)
                        : exponent < 31 ? std::ldexp(1024 + fraction, exponent - 25)
                        : fraction == 0 ? std::numeric_limits<double>::infinity()
                                        : std::numeric_limits<double>::quiet_NaN();
    return bits & 0x8000 ? -size : size;
  }
};

// Calls `use` with an element of the dtype's C++ type; false for those that Lua cannot hold.
template <class Use>
bool with_element(infinilm::DataType dtype, Use use) {
  using enum infinilm::DataType;
  switch (dtype) {
    case F32:
      return use(float{});
    case F64:
      return use(double{});
    case F16:
      return use(Float16{});
    case BF16:
      return use(BFloat16{});
    case I8:
      return use(std::int8_t{});
    case U8:
      return use(std::uint8_t{});
    case I16:
      return use(std::int16_t{});
    case U16:
      return use(std::uint16_t{});
    case I32:
      return use(std::int32_t{});
    case U32:
      return use(std::uint32_t{});
    case I64:
      return use(std::int64_t{});
    case U64:
      return use(std::uint64_t{});
    case BOOL:
      return use(bool{});
    default:
      return false;
  }
}

inline bool push_element(lua_State* L, infinilm::DataType dtype, const std::byte* data) {
  return with_element(dtype, [&]<class Element>(Element element) {
    std::memcpy(&element, data, sizeof element);
    if constexpr (std::is_class_v<Element> || std::is_floating_point_v<Element>) {
      from_value(L, static_cast<double>(element));
    } else {
      from_value(L, element);
    }
    return true;
  });
}

// Writes the value at `index` of the stack; an error for one that the dtype does not take.
inline bool store_element(lua_State* L, int index, infinilm::DataType dtype, std::byte* data) {
  bool written = false;
  const bool known = with_element(dtype, [&]<class Element>(Element element) {
    if constexpr (std::is_class_v<Element>) {
      return false;
    } else {
      written = to_value(L, index, "an element of " + std::string(name_of(dtype)), element);
      if (written) std::memcpy(data, &element, sizeof element);
      return true;
    }
  });
  if (!known)
    push_error(L, "TypeError", "views of " + std::string(name_of(dtype)) + " can only be read");
  return known && written;
}

inline bool dtype_error(lua_State* L, const infinilm::Tensor& tensor) {
  push_error(L, "TypeError",
             "Lua has no numbers for elements of dtype " + std::string(name_of(tensor.dtype())));
  return false;
}

// Pushes a number, or tables of tables of them.
inline bool push_values(lua_State* L, const infinilm::Tensor& tensor, const std::byte* data,
                        std::size_t dimension) {
  if (dimension == tensor.shape().size())
    return push_element(L, tensor.dtype(), data) || dtype_error(L, tensor);
  infinilm::check<infinilm::Error>(lua_checkstack(L, 4), "the Lua stack is full");
  const auto step = static_cast<std::int64_t>(tensor.itemsize()) * tensor.strides()[dimension];
  lua_createtable(L, static_cast<int>(tensor.shape()[dimension]), 0);
  for (std::int64_t i = 0; i < tensor.shape()[dimension]; ++i) {
    if (!push_values(L, tensor, data + i * step, dimension + 1)) return false;
    lua_rawseti(L, -2, i + 1);
  }
  return true;
}

// The table at `index` has a value for each place along the dimension, and no others; an error else.
inline bool check_values(lua_State* L, int index, const infinilm::Tensor& tensor,
                         std::size_t dimension) {
  std::size_t found = 0;
  if (!to_length(L, index, "values", "as deep as the tensor has dimensions: a sequence here",
                 found))
    return false;
  const std::int64_t length = tensor.shape()[dimension];
  if (static_cast<std::int64_t>(found) == length) return true;
  push_error(L, "ValueError",
             infinilm::concat("expected ", length, " values along dimension ", dimension + 1,
                              " of ", infinilm::str_of(tensor.shape()), ", found ", found));
  return false;
}

// Writes one value everywhere (`broadcast`), or tables of tables of the tensor's shape.
inline bool store_values(lua_State* L, int index, const infinilm::Tensor& tensor, std::byte* data,
                         std::size_t dimension, bool broadcast) {
  if (dimension == tensor.shape().size()) return store_element(L, index, tensor.dtype(), data);
  infinilm::check<infinilm::Error>(lua_checkstack(L, 4), "the Lua stack is full");
  const std::int64_t length = tensor.shape()[dimension];
  const auto step = static_cast<std::int64_t>(tensor.itemsize()) * tensor.strides()[dimension];
  if (!broadcast && !check_values(L, index, tensor, dimension)) return false;
  for (std::int64_t i = 0; i < length; ++i) {
    if (!broadcast) lua_rawgeti(L, index, i + 1);
    const int item = broadcast ? index : lua_gettop(L);
    if (!store_values(L, item, tensor, data + i * step, dimension + 1, broadcast)) return false;
    if (!broadcast) lua_pop(L, 1);
  }
  return true;
}

}  // namespace infinilm_lua
