// Tensors and arrays. Anything with __dlpack__ or __array_interface__ is taken where a Tensor is expected; what Tensor itself
// offers is in infinilm/_tensor.py, on the four functions below.
%{
#include "support/dlpack.hpp"
%}

// What may wait for a device: other threads go on meanwhile.
%thread infinilm::Tensor::to;
%thread infinilm::Tensor::clone;
%thread infinilm::Tensor::contiguous;
%thread infinilm::Tensor::copy_from;

INFINILM_PY_IN(infinilm::Device, to_value, "typing.Union[Device, str]")
INFINILM_PY_IN(infinilm::Tensor, to_value, "Tensor")
INFINILM_PY_VALUE(std::vector<infinilm::Tensor>, "list[Tensor]")
INFINILM_PY_VALUE(%arg(std::map<std::string, infinilm::Tensor>), "dict[str, Tensor]")
INFINILM_PY_OUT(std::vector<infinilm::Captured>, from_value)
INFINILM_PY_OUT(std::vector<infinilm::CudaDevice>, from_value)
INFINILM_PY_OUT(std::vector<infinilm::HookPoint>, from_value)
INFINILM_PY_OUT(std::vector<infinilm::HookPointPattern>, from_value)
INFINILM_PY_OUT(std::vector<infinilm::ParameterInfo>, from_value)
INFINILM_PY_OUT(std::vector<infinilm::StepSequence>, from_value)
%typemap(out) std::vector<infinilm::StepSequence>* {  // a member: SWIG knows its class
  $result = infinilm_py::from_value(*$1);
  if (!$result) SWIG_fail;
}
%typemap(pytyping) std::vector<infinilm::Captured> "list[Captured]"
%typemap(pytyping) std::vector<infinilm::CudaDevice> "list[CudaDevice]"
%typemap(pytyping) std::vector<infinilm::HookPoint> "list[HookPoint]"
%typemap(pytyping) const std::vector<infinilm::HookPointPattern>& "list[HookPointPattern]"
%typemap(pytyping) std::vector<infinilm::ParameterInfo> "list[ParameterInfo]"
%typemap(pytyping) std::vector<infinilm::StepSequence>, std::vector<infinilm::StepSequence>* "list[StepSequence]"

%{
namespace infinilm_py {

template <class Value>
PyObject* new_proxy(const Value& value, swig_type_info* type) {
  return SWIG_NewPointerObj(new Value(value), type, SWIG_POINTER_OWN);
}
PyObject* from_value(const infinilm::Tensor& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__Tensor);
}
PyObject* from_value(const infinilm::Captured& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__Captured);
}
PyObject* from_value(const infinilm::CudaDevice& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__CudaDevice);
}
PyObject* from_value(const infinilm::HookPoint& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__HookPoint);
}
PyObject* from_value(const infinilm::HookPointPattern& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__HookPointPattern);
}
PyObject* from_value(const infinilm::ParameterInfo& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__ParameterInfo);
}
PyObject* from_value(const infinilm::StepSequence& value) {
  return new_proxy(value, SWIGTYPE_p_infinilm__StepSequence);
}

infinilm::Shape byte_strides(const infinilm::Tensor& tensor) {
  infinilm::Shape bytes = tensor.strides();
  for (std::int64_t& stride : bytes) stride *= static_cast<std::int64_t>(tensor.itemsize());
  return bytes;
}

template <class Value>
bool from_proxy(PyObject* object, swig_type_info* type, Value& value) {
  void* pointer = nullptr;
  if (!SWIG_IsOK(SWIG_ConvertPtr(object, &pointer, type, 0)) || !pointer) return false;
  value = *static_cast<Value*>(pointer);
  return true;
}

// Whoever takes a tensor will look at it: for values that are on their way it waits here, where other threads can go on.
bool wait_for(const infinilm::Tensor& tensor) {
  if (!tensor.buffer() || !tensor.buffer()->is_pending()) return true;
  try {
    const NoGil others_go_on;
    tensor.buffer()->wait();
    return true;
  } catch (const std::exception&) {
    set_error_from_exception();
    return false;
  }
}

bool to_value(PyObject* object, const std::string& field, infinilm::Tensor& value) {
  if (from_proxy(object, SWIGTYPE_p_infinilm__Tensor, value)) return wait_for(value);
  static PyObject* kept = nullptr;
  PyObject* convert = from_package(kept, "infinilm._tensor", "tensor_from");
  const Owned name(from_value(field));
  if (!convert || !name) return false;
  const Owned made(PyObject_CallFunctionObjArgs(convert, object, name.get(), nullptr));
  return made && from_proxy(made.get(), SWIGTYPE_p_infinilm__Tensor, value);
}

bool to_value(PyObject* object, const std::string& field, infinilm::Device& value) {
  if (from_proxy(object, SWIGTYPE_p_infinilm__Device, value)) return true;
  if (!PyUnicode_Check(object)) return type_error(field, "a Device or its name", object);
  std::string name;
  if (!to_value(object, field, name)) return false;
  try {
    value = infinilm::Device(name);
    return true;
  } catch (const std::exception& e) {
    set_error(PyExc_ValueError, field + ": " + e.what());
    return false;
  }
}

}  // namespace infinilm_py
%}

%rename(_borrow_tensor) infinilm_py_borrow_tensor;
%rename(_tensor_to_dlpack) infinilm_py_to_dlpack;
%rename(_tensor_from_dlpack) infinilm_py_from_dlpack;
%rename(_stream_of) infinilm_py_stream_of;
%rename(_tensor_interface) infinilm_py_interface;
%inline %{
// Memory at `address`, kept alive by `owner`; strides in bytes.
infinilm::Tensor infinilm_py_borrow_tensor(PyObject* owner, std::size_t address, infinilm::DataType dtype,
                                           const infinilm::Shape& shape, const infinilm::Shape& strides,
                                           bool read_only) {
  const auto item = static_cast<std::int64_t>(infinilm::size_of(dtype));
  infinilm::Shape elements = strides;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    infinilm::check(elements[i] % item == 0 || shape[i] <= 1, "expected strides that are multiples of ", item,
                    " bytes, found ", elements[i]);
    elements[i] /= item;
  }
  return infinilm::Tensor::borrow(reinterpret_cast<void*>(address), dtype, shape, std::move(elements),
                                  infinilm::Device(), infinilm_py::share(owner), read_only);
}
PyObject* infinilm_py_to_dlpack(const infinilm::Tensor& tensor, bool versioned, bool copy, std::uint64_t stream) {
  return infinilm_py::dlpack::to_capsule(tensor, versioned, copy, static_cast<std::uintptr_t>(stream));
}
// The engine's stream on a CUDA device, as DLPack numbers it.
std::uint64_t infinilm_py_stream_of(const infinilm::Device& device) { return infinilm::stream_of(device); }
infinilm::Tensor infinilm_py_from_dlpack(PyObject* capsule) {
  return infinilm_py::dlpack::from_capsule(capsule);
}
// The array interface of memory on the CPU under a dtype of NumPy's; None for memory elsewhere.
PyObject* infinilm_py_interface(const infinilm::Tensor& tensor, const std::string& typestr) {
  if (tensor.device().type() != infinilm::DeviceType::CPU) return infinilm_py::new_reference(Py_None);
  return Py_BuildValue("{s:i,s:N,s:N,s:s,s:(KN)}", "version", 3, "shape", infinilm_py::from_shape(tensor.shape()),
                       "strides", infinilm_py::from_shape(infinilm_py::byte_strides(tensor)), "typestr",
                       typestr.c_str(), "data", reinterpret_cast<unsigned long long>(tensor.data()),
                       PyBool_FromLong(tensor.read_only()));
}
%}
