// Numbers, texts and paths from Python, strictly: what is no integer is refused, by the name of the field.
// Each function returns false with a Python error set.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "support/object.hpp"

namespace infinilm_py {

// "TypeError: vocab_size must be an int, not float"
inline bool type_error(const std::string& field, const char* expected, PyObject* found) {
  const Owned name(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(found)), "__name__"));
  if (name)
    PyErr_Format(PyExc_TypeError, "%s must be %s, not %U", field.c_str(), expected, name.get());
  return false;
}

// Python's bool, and NumPy's and torch's, which have an __index__ in some versions.
inline bool is_bool(PyObject* object) {
  if (PyBool_Check(object)) return true;
  if (PyLong_Check(object) || PyFloat_Check(object)) return false;
  const Owned dtype(PyObject_GetAttrString(object, "dtype"));
  const Owned text(dtype ? PyObject_Str(dtype.get()) : nullptr);
  const char* name = text ? PyUnicode_AsUTF8AndSize(text.get(), nullptr) : nullptr;
  if (!name) PyErr_Clear();
  return name && std::string(name).find("bool") != std::string::npos;
}

// An exact Python int from an int or whatever has __index__; null with TypeError.
inline Owned to_python_int(PyObject* object, const std::string& field,
                           const char* expected = "an int") {
  if (is_bool(object)) {
    type_error(field, expected, object);
    return nullptr;
  }
  Owned number(PyNumber_Index(object));
  if (!number && PyErr_ExceptionMatches(PyExc_TypeError)) type_error(field, expected, object);
  return number;
}

inline bool out_of_range(const std::string& field, PyObject* number, const char* range) {
  PyErr_Clear();
  PyErr_Format(PyExc_OverflowError, "%s must be %s, found %R", field.c_str(), range, number);
  return false;
}

template <class Integer>
bool to_signed(PyObject* object, const std::string& field, Integer& value) {
  const Owned number = to_python_int(object, field);
  if (!number) return false;
  int overflow = 0;
  const long long wide = PyLong_AsLongLongAndOverflow(number.get(), &overflow);
  if (wide == -1 && PyErr_Occurred()) return false;
  if (overflow != 0 || wide < std::numeric_limits<Integer>::min() ||
      wide > std::numeric_limits<Integer>::max()) {
    return out_of_range(field, number.get(),
                        sizeof(Integer) == 8 ? "a 64-bit integer" : "a 32-bit integer");
  }
  value = static_cast<Integer>(wide);
  return true;
}

template <class Integer>
bool to_unsigned(PyObject* object, const std::string& field, Integer& value) {
  const Owned number = to_python_int(object, field);
  if (!number) return false;
  int overflow = 0;
  const long long wide = PyLong_AsLongLongAndOverflow(number.get(), &overflow);
  if (overflow < 0 || (overflow == 0 && wide < 0)) {
    PyErr_Format(PyExc_ValueError, "%s must not be negative, found %R", field.c_str(),
                 number.get());
    return false;
  }
  const unsigned long long all = PyLong_AsUnsignedLongLong(number.get());
  if (PyErr_Occurred()) return out_of_range(field, number.get(), "below 2**64");
  value = static_cast<Integer>(all);
  return true;
}

inline bool to_value(PyObject* object, const std::string& field, bool& value) {
  if (!is_bool(object)) return type_error(field, "a bool", object);
  const int truth = PyObject_IsTrue(object);
  value = truth == 1;
  return truth >= 0;
}

inline bool to_value(PyObject* object, const std::string& field, double& value) {
  if (is_bool(object)) return type_error(field, "a float", object);
  value = PyFloat_AsDouble(object);
  if (!PyErr_Occurred()) return true;
  if (PyErr_ExceptionMatches(PyExc_TypeError)) type_error(field, "a float", object);
  return false;
}

inline bool to_value(PyObject* object, const std::string& field, std::string& value) {
  if (!PyUnicode_Check(object)) return type_error(field, "a str", object);
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(object, &size);
  if (text) value.assign(text, static_cast<std::size_t>(size));
  return text != nullptr;
}

template <class Integer>
  requires std::is_integral_v<Integer>
bool to_value(PyObject* object, const std::string& field, Integer& value) {
  if constexpr (std::is_signed_v<Integer>) {
    return to_signed(object, field, value);
  } else {
    return to_unsigned(object, field, value);
  }
}

// A str or whatever has __fspath__.
inline bool to_path(PyObject* object, const std::string& field, std::string& value) {
  const Owned path(PyOS_FSPath(object));
  if (!path) {
    if (PyErr_ExceptionMatches(PyExc_TypeError))
      type_error(field, "a path (str or os.PathLike)", object);
    return false;
  }
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.get(), &bytes)) return false;
  const Owned owned(bytes);
  char* text = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes, &text, &size) < 0) return false;
  value.assign(text, static_cast<std::size_t>(size));
  return true;
}

inline PyObject* from_value(bool value) { return PyBool_FromLong(value); }
inline PyObject* from_value(double value) { return PyFloat_FromDouble(value); }
inline PyObject* from_value(const std::string& value) {
  return PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()),
                              "surrogateescape");
}
template <class Integer>
  requires std::is_integral_v<Integer>
PyObject* from_value(Integer value) {
  if constexpr (std::is_signed_v<Integer>) {
    return PyLong_FromLongLong(value);
  } else {
    return PyLong_FromUnsignedLongLong(value);
  }
}

}  // namespace infinilm_py
