// DataType: a member of the Python enum, a name, or NumPy's or torch's dtype.
#pragma once

#include <array>
#include <string>

#include "infinilm/dtype.hpp"
#include "support/errors.hpp"
#include "support/scalars.hpp"

namespace infinilm_py {

// The name in a dtype object of another library: numpy.dtype("float32"), numpy.float32, torch.float32.
inline bool name_of_foreign_dtype(PyObject* object, std::string& name) {
  Owned text(PyObject_GetAttrString(object, PyType_Check(object) ? "__name__" : "name"));
  if (!text || !PyUnicode_Check(text.get())) {
    PyErr_Clear();
    text.reset(PyObject_Str(object));
    if (!text || !to_value(text.get(), "dtype", name)) PyErr_Clear();
    return name.starts_with("torch.");
  }
  return to_value(text.get(), "dtype", name);
}

// DataType's members are str, so that they take the way of the names.
inline bool to_value(PyObject* object, const std::string& field, infinilm::DataType& value) {
  std::string name;
  if (PyUnicode_Check(object)) {
    if (!to_value(object, field, name)) return false;
  } else if (!name_of_foreign_dtype(object, name)) {
    PyErr_Clear();
    return type_error(field, "a DataType or its name", object);
  }
  try {
    value = infinilm::parse_dtype(name);
    return true;
  } catch (const std::exception& e) {
    set_error(PyExc_ValueError, field + ": " + e.what());
    return false;
  }
}

// The member of infinilm.dtypes.DataType, kept for ever once it was asked for.
inline PyObject* from_value(infinilm::DataType value) {
  static std::array<PyObject*, infinilm::kDataTypeCount> members{};
  PyObject*& member = members.at(static_cast<std::size_t>(value));
  if (!member) {
    static PyObject* kept = nullptr;
    PyObject* type = from_package(kept, "infinilm.dtypes", "DataType");
    if (type) member = PyObject_GetAttrString(type, std::string(code_of(value)).c_str());
  }
  return new_reference(member);
}

}  // namespace infinilm_py
