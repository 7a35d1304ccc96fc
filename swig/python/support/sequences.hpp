// Lists and dicts: token ids (one or several), shapes, names.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/dtypes.hpp"
#include "support/proxies.hpp"
#include "support/scalars.hpp"

namespace infinilm_py {

// A list or tuple of the elements of a sequence, an array or a range; null with TypeError. Arrays are read as a whole by
// `tolist`, which is also much quicker than element by element.
inline Owned to_fast_sequence(PyObject* object, const std::string& field, const char* expected) {
  if (PyList_Check(object) || PyTuple_Check(object)) return Owned(new_reference(object));
  const bool text = PyUnicode_Check(object) || PyBytes_Check(object) || PyByteArray_Check(object);
  if (!text && PyObject_HasAttrString(object, "tolist")) {
    Owned list(PyObject_CallMethod(object, "tolist", nullptr));
    if (!list || PyList_Check(list.get())) return list;
  }
  if (text || !PySequence_Check(object)) {
    type_error(field, expected, object);
    return nullptr;
  }
  return Owned(PySequence_List(object));
}

inline Py_ssize_t fast_size(PyObject* sequence) {
  return PyList_Check(sequence) ? PyList_Size(sequence) : PyTuple_Size(sequence);
}

// A new reference: converting an element may run Python code that changes the list.
inline Owned fast_item(PyObject* sequence, Py_ssize_t i) {
  return Owned(new_reference(PyList_Check(sequence) ? PyList_GetItem(sequence, i)
                                                    : PyTuple_GetItem(sequence, i)));
}

// Each element by `convert(element, "field[i]", value)`.
template <class Value, class Convert>
bool to_vector(PyObject* object, const std::string& field, const char* expected,
               std::vector<Value>& values, Convert convert) {
  const Owned sequence = to_fast_sequence(object, field, expected);
  if (!sequence) return false;
  std::vector<Value> result;
  result.reserve(static_cast<std::size_t>(fast_size(sequence.get())));
  for (Py_ssize_t i = 0; i < fast_size(sequence.get()); ++i) {
    const Owned item = fast_item(sequence.get(), i);
    Value value{};
    if (!item || !convert(item.get(), field + "[" + std::to_string(i) + "]", value)) return false;
    result.push_back(std::move(value));
  }
  values = std::move(result);
  return true;
}

template <class Value>
bool to_value(PyObject* object, const std::string& field, std::vector<Value>& values) {
  return to_vector(object, field, "a sequence", values,
                   [](PyObject* item, const std::string& name, Value& value) {
                     return to_value(item, name, value);
                   });
}

inline bool has_bool_elements(PyObject* object) {
  return !PyList_Check(object) && !PyTuple_Check(object) && is_bool(object);
}

// One int64 per element; plain ints take the quick way, without building the element's name.
inline bool to_ids(PyObject* object, const std::string& field, const char* expected,
                   std::vector<std::int64_t>& values) {
  if (has_bool_elements(object)) return type_error(field, expected, object);
  const Owned sequence = to_fast_sequence(object, field, expected);
  if (!sequence) return false;
  std::vector<std::int64_t> result(static_cast<std::size_t>(fast_size(sequence.get())));
  for (std::size_t i = 0; i < result.size(); ++i) {
    const Owned item = fast_item(sequence.get(), static_cast<Py_ssize_t>(i));
    if (!item) return false;
    if (PyLong_CheckExact(item.get())) {
      int overflow = 0;
      result[i] = PyLong_AsLongLongAndOverflow(item.get(), &overflow);
      if (overflow == 0) continue;
    }
    if (!to_value(item.get(), field + "[" + std::to_string(i) + "]", result[i])) return false;
  }
  values = std::move(result);
  return true;
}

// Token ids: an int (or what has __index__) or a sequence of them. Arrays have both; the sequence wins unless the array
// has no dimension.
inline bool to_token_ids(PyObject* object, const std::string& field,
                         std::vector<std::int64_t>& values) {
  static constexpr const char* kExpected = "an int or a sequence of ints";
  const bool sequence =
      !PyLong_Check(object) && PySequence_Check(object) && PySequence_Size(object) >= 0;
  PyErr_Clear();
  if (sequence) return to_ids(object, field, kExpected, values);
  const Owned number = to_python_int(object, field, kExpected);
  std::int64_t id = 0;
  if (!number || !to_value(number.get(), field, id)) return false;
  values = {id};
  return true;
}

// For batches: what is no sequence is no batch, a sequence may be empty.
inline bool to_token_id_lists(PyObject* object, const std::string& field,
                              std::vector<std::vector<std::int64_t>>& values) {
  return to_vector(object, field, "a sequence of sequences of ints", values,
                   [](PyObject* item, const std::string& name, std::vector<std::int64_t>& ids) {
                     return to_ids(item, name, "a sequence of ints", ids);
                   });
}

inline bool to_shape(PyObject* object, const std::string& field,
                     std::vector<std::int64_t>& values) {
  return to_token_ids(object, field, values);
}

template <class Value>
PyObject* from_value(const std::vector<Value>& values) {
  Owned list(PyList_New(static_cast<Py_ssize_t>(values.size())));
  for (std::size_t i = 0; list && i < values.size(); ++i) {
    PyObject* item = from_value(values[i]);
    if (!item || PyList_SetItem(list.get(), static_cast<Py_ssize_t>(i), item) < 0) return nullptr;
  }
  return list.release();
}

inline PyObject* from_shape(const std::vector<std::int64_t>& shape) {
  const Owned list(from_value(shape));
  return list ? PyList_AsTuple(list.get()) : nullptr;
}

template <class Value>
PyObject* from_value(const std::map<std::string, Value>& values) {
  Owned dict(PyDict_New());
  for (const auto& [name, value] : values) {
    const Owned key(from_value(name));
    const Owned item(from_value(value));
    if (!dict || !key || !item || PyDict_SetItem(dict.get(), key.get(), item.get()) < 0)
      return nullptr;
  }
  return dict.release();
}

// Any mapping of str to what `to_value` takes; an element's field is `field["name"]`.
template <class Value>
bool to_value(PyObject* object, const std::string& field, std::map<std::string, Value>& values) {
  if (!PyObject_HasAttrString(object, "items")) return type_error(field, "a mapping", object);
  const Owned items(PyMapping_Items(object));
  if (!items) return false;
  std::map<std::string, Value> result;
  for (Py_ssize_t i = 0; i < PyList_Size(items.get()); ++i) {
    const Owned pair(PySequence_Tuple(PyList_GetItem(items.get(), i)));
    PyObject* key = pair ? PyTuple_GetItem(pair.get(), 0) : nullptr;
    PyObject* item = key ? PyTuple_GetItem(pair.get(), 1) : nullptr;
    std::string name;
    Value value{};
    if (!item || !to_value(key, field + "'s key", name)) return false;
    if (!to_value(item, field + "[\"" + name + "\"]", value)) return false;
    result.insert_or_assign(std::move(name), std::move(value));
  }
  values = std::move(result);
  return true;
}

template <class Value>
PyObject* from_value(const std::optional<Value>& value) {
  return value ? from_value(*value) : new_reference(Py_None);
}

template <class Value>
bool to_value(PyObject* object, const std::string& field, std::optional<Value>& value) {
  if (object == Py_None) {
    value.reset();
    return true;
  }
  Value present{};
  if (!to_value(object, field, present)) return false;
  value = std::move(present);
  return true;
}

}  // namespace infinilm_py
