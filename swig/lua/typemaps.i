// Values in and out. A typemap is needed for `T` (members go by value) and for `const T&`.
%define INFINILM_LUA_IN(convert, Type...)
%typemap(in) Type (Type value = Type()) {
  if (!infinilm_lua::convert(L, $input, "$1_name", value)) SWIG_fail;
  $1 = value;
}
%typemap(in) const Type& (Type value = Type()) {
  if (!infinilm_lua::convert(L, $input, "$1_name", value)) SWIG_fail;
  $1 = &value;
}
%enddef

%define INFINILM_LUA_OUT(Type...)
%typemap(out) Type {
  infinilm_lua::from_value(L, static_cast<const Type&>($1));
  SWIG_arg++;
}
%typemap(out) const Type& {
  infinilm_lua::from_value(L, *$1);
  SWIG_arg++;
}
%enddef

%define INFINILM_LUA_VALUE(Type...)
INFINILM_LUA_IN(to_value, Type)
INFINILM_LUA_OUT(Type)
%enddef

INFINILM_LUA_VALUE(bool)
INFINILM_LUA_VALUE(int)
INFINILM_LUA_VALUE(size_t)
INFINILM_LUA_VALUE(std::size_t)
INFINILM_LUA_VALUE(std::int64_t)
INFINILM_LUA_VALUE(std::uint64_t)
INFINILM_LUA_VALUE(double)
INFINILM_LUA_VALUE(std::string)
INFINILM_LUA_VALUE(infinilm::DataType)
INFINILM_LUA_VALUE(std::optional<std::size_t>)
INFINILM_LUA_VALUE(std::optional<std::int64_t>)
INFINILM_LUA_VALUE(std::optional<std::uint64_t>)
INFINILM_LUA_VALUE(std::optional<infinilm::DataType>)
INFINILM_LUA_VALUE(std::vector<std::string>)
INFINILM_LUA_VALUE(std::vector<float>)
INFINILM_LUA_VALUE(std::vector<std::size_t>)
INFINILM_LUA_VALUE(std::vector<std::int64_t>)
INFINILM_LUA_VALUE(std::map<std::string, std::string>)
INFINILM_LUA_VALUE(std::map<std::string, std::int64_t>)

// Token ids and shapes: one or several in, a table out.
INFINILM_LUA_IN(to_token_ids, infinilm::TokenIds)
INFINILM_LUA_OUT(infinilm::TokenIds)
INFINILM_LUA_IN(to_token_id_lists, std::vector<infinilm::TokenIds>)
INFINILM_LUA_OUT(std::vector<infinilm::TokenIds>)
INFINILM_LUA_IN(to_token_ids, infinilm::Shape)
INFINILM_LUA_OUT(infinilm::Shape)

// Paths: Lua has them as strings.
%apply const std::string& { const std::string& directory, const std::string& path }

%typemap(in) std::string_view (std::string value) {
  if (!infinilm_lua::to_value(L, $input, "$1_name", value)) SWIG_fail;
  $1 = value;
}
%typemap(out) std::string_view {
  infinilm_lua::from_value(L, $1);
  SWIG_arg++;
}

// Tensors and other objects of the core. SWIG takes nil for a null pointer; nobody here expects one.
%typemap(in, checkfn="lua_isuserdata") SWIGTYPE * {
  if (!SWIG_IsOK(SWIG_ConvertPtr(L, $input, (void**)&$1, $descriptor, 0)))
    SWIG_fail_ptr("$symname", $argnum, $descriptor)
}
INFINILM_LUA_IN(to_value, infinilm::Device)
INFINILM_LUA_IN(to_value, infinilm::Tensor)
INFINILM_LUA_OUT(infinilm::Tensor)
INFINILM_LUA_VALUE(std::vector<infinilm::Tensor>)
INFINILM_LUA_VALUE(std::map<std::string, infinilm::Tensor>)
INFINILM_LUA_OUT(std::vector<infinilm::Captured>)
INFINILM_LUA_OUT(std::vector<infinilm::CudaDevice>)
INFINILM_LUA_OUT(std::vector<infinilm::HookPoint>)
INFINILM_LUA_OUT(std::vector<infinilm::HookPointPattern>)
INFINILM_LUA_OUT(std::vector<infinilm::ParameterInfo>)
INFINILM_LUA_OUT(std::vector<infinilm::StepSequence>)
%typemap(out) std::vector<infinilm::StepSequence>* {  // a member: SWIG knows its class
  infinilm_lua::from_value(L, *$1);
  SWIG_arg++;
}
%{
namespace infinilm_lua {

template <class Value>
void push_copy(lua_State* L, const Value& value, swig_type_info* type) {
  push_proxy(L, new Value(value), type, 1);
}
void from_value(lua_State* L, const infinilm::Tensor& value) {
  account_for(L, value);
  push_copy(L, value, SWIGTYPE_p_infinilm__Tensor);
}
void from_value(lua_State* L, const infinilm::Captured& value) {
  account_for(L, value.tensor());
  push_copy(L, value, SWIGTYPE_p_infinilm__Captured);
}
void from_value(lua_State* L, const infinilm::CudaDevice& value) {
  push_copy(L, value, SWIGTYPE_p_infinilm__CudaDevice);
}
void from_value(lua_State* L, const infinilm::HookPoint& value) {
  push_copy(L, value, SWIGTYPE_p_infinilm__HookPoint);
}
void from_value(lua_State* L, const infinilm::HookPointPattern& value) {
  push_copy(L, value, SWIGTYPE_p_infinilm__HookPointPattern);
}
void from_value(lua_State* L, const infinilm::ParameterInfo& value) {
  push_copy(L, value, SWIGTYPE_p_infinilm__ParameterInfo);
}
void from_value(lua_State* L, const infinilm::StepSequence& value) {
  push_copy(L, value, SWIGTYPE_p_infinilm__StepSequence);
}

template <class Value>
bool from_proxy(lua_State* L, int index, swig_type_info* type, Value& value) {
  void* pointer = nullptr;
  if (!to_header(L, index) || !SWIG_IsOK(SWIG_ConvertPtr(L, index, &pointer, type, 0)) || !pointer)
    return false;
  value = *static_cast<Value*>(pointer);
  return true;
}

bool to_value(lua_State* L, int index, const std::string& field, infinilm::Tensor& value) {
  if (from_proxy(L, index, SWIGTYPE_p_infinilm__Tensor, value)) return true;
  return type_error(L, index, field, "a Tensor (infinilm.tensor makes one of a table)");
}

bool to_value(lua_State* L, int index, const std::string& field, infinilm::Device& value) {
  if (from_proxy(L, index, SWIGTYPE_p_infinilm__Device, value)) return true;
  if (lua_type(L, index) != LUA_TSTRING)
    return type_error(L, index, field, "a Device or its name");
  try {
    value = infinilm::Device(lua_tostring(L, index));
    return true;
  } catch (const std::exception& e) {
    push_error(L, "ValueError", field + ": " + e.what());
    return false;
  }
}

}  // namespace infinilm_lua
%}
