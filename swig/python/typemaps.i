// Values in and out. A typemap is needed for `T` (members go by value) and for `const T&`; where none matches SWIG makes an
// opaque pointer without a word, for which a test looks.
%{
#include "support/sequences.hpp"
%}

// in, by support/*.hpp's to_value or `convert`; `hint` is the annotation of arguments and results.
%define INFINILM_PY_IN(Type, convert, hint)
%typemap(in) Type (Type value) {
  if (!infinilm_py::convert($input, "$1_name", value)) SWIG_fail;
  $1 = value;
}
%typemap(in) const Type& (Type value) {
  if (!infinilm_py::convert($input, "$1_name", value)) SWIG_fail;
  $1 = &value;
}
%typemap(pytyping) Type, const Type& hint
%enddef

%define INFINILM_PY_OUT(Type, convert)
%typemap(out) Type {
  $result = infinilm_py::convert(static_cast<const Type&>($1));
  if (!$result) SWIG_fail;
}
%typemap(out) const Type& {
  $result = infinilm_py::convert(*$1);
  if (!$result) SWIG_fail;
}
%enddef

%define INFINILM_PY_VALUE(Type, hint)
INFINILM_PY_IN(%arg(Type), to_value, hint)
INFINILM_PY_OUT(%arg(Type), from_value)
%enddef

INFINILM_PY_VALUE(bool, "bool")
INFINILM_PY_VALUE(int, "int")
INFINILM_PY_VALUE(size_t, "int")
INFINILM_PY_VALUE(std::size_t, "int")
INFINILM_PY_VALUE(std::int64_t, "int")
INFINILM_PY_VALUE(std::uint64_t, "int")
INFINILM_PY_VALUE(double, "float")
INFINILM_PY_VALUE(std::string, "str")
INFINILM_PY_VALUE(infinilm::DataType, "infinilm.dtypes.DataType")
INFINILM_PY_VALUE(std::optional<std::size_t>, "typing.Optional[int]")
INFINILM_PY_VALUE(std::optional<std::int64_t>, "typing.Optional[int]")
INFINILM_PY_VALUE(std::optional<std::uint64_t>, "typing.Optional[int]")
INFINILM_PY_VALUE(std::optional<infinilm::DataType>, "typing.Optional[infinilm.dtypes.DataType]")
INFINILM_PY_VALUE(std::vector<std::string>, "list[str]")
INFINILM_PY_VALUE(std::vector<float>, "list[float]")
INFINILM_PY_VALUE(std::vector<std::size_t>, "list[int]")
INFINILM_PY_VALUE(std::vector<std::int64_t>, "list[int]")
INFINILM_PY_VALUE(%arg(std::map<std::string, std::string>), "dict[str, str]")
INFINILM_PY_VALUE(%arg(std::map<std::string, std::int64_t>), "dict[str, int]")

// Token ids: one or several in, a list out.
INFINILM_PY_IN(infinilm::TokenIds, to_token_ids, "typing.Union[int, collections.abc.Sequence[int]]")
INFINILM_PY_OUT(infinilm::TokenIds, from_value)
INFINILM_PY_IN(std::vector<infinilm::TokenIds>, to_token_id_lists, "collections.abc.Sequence[collections.abc.Sequence[int]]")
INFINILM_PY_OUT(std::vector<infinilm::TokenIds>, from_value)

// Shapes: one number or several in, a tuple out.
INFINILM_PY_IN(infinilm::Shape, to_shape, "tuple[int, ...]")
INFINILM_PY_OUT(infinilm::Shape, from_shape)

// Paths, by the names that arguments of that kind have.
%typemap(in) const std::string& directory (std::string value), const std::string& path (std::string value) {
  if (!infinilm_py::to_path($input, "$1_name", value)) SWIG_fail;
  $1 = &value;
}
%typemap(pytyping) const std::string& directory, const std::string& path "typing.Union[str, os.PathLike[str]]"

%typemap(in) std::string_view (std::string value) {
  if (!infinilm_py::to_value($input, "$1_name", value)) SWIG_fail;
  $1 = value;
}
%typemap(pytyping) std::string_view "str"

// The names of proxy classes as annotations.
%typemap(pytyping) SWIGTYPE "$&pytypename"
%typemap(pytyping) SWIGTYPE *, SWIGTYPE & "$pytypename"
%typemap(pytyping) PyObject * "typing.Any"
%typemap(pytyping) std::shared_ptr<infinilm::Capture> "Capture"
%typemap(pytyping) std::shared_ptr<infinilm::HookHandle> "HookHandle"
%typemap(pytyping) std::shared_ptr<infinilm::HookRegistry> "typing.Optional[HookRegistry]"
%typemap(pytyping) std::shared_ptr<infinilm::LlamaForCausalLM> "LlamaForCausalLM"
%typemap(pytyping) std::shared_ptr<infinilm::KvCache> "KvCache"
%typemap(pytyping) const std::shared_ptr<infinilm::KvCache>& "typing.Optional[KvCache]"
