// Python objects held by C++: references that any thread may copy and drop, and errors that travel through the core.
#pragma once

#include <exception>
#include <memory>

#include "support/gil.hpp"

namespace infinilm_py {

// A counted reference of its own, to be used where the lock is held anyway. Not dropped at exit: there, a thread that
// asks for the lock inside of a Python call is unwound without it (see gil.hpp).
struct DecRef {
  void operator()(PyObject* object) const {
    if (!shutting_down) Py_XDECREF(object);
  }
};
using Owned = std::unique_ptr<PyObject, DecRef>;

inline PyObject* new_reference(PyObject* object) {
  Py_XINCREF(object);
  return object;
}

// A reference that may be copied and dropped on any thread, with or without the lock.
using Shared = std::shared_ptr<PyObject>;

inline void drop_on_any_thread(PyObject* object) {
  if (!object || shutting_down) return;  // leak at exit: never touch a dying interpreter
  const Gil gil;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);  // a __del__ must not eat an error that is on its way
  or_park([object] { Py_DECREF(object); });
  PyErr_Restore(type, value, traceback);
}

// Takes over a new reference.
inline Shared share_new(PyObject* object) { return Shared(object, drop_on_any_thread); }
inline Shared share(PyObject* borrowed) { return share_new(new_reference(borrowed)); }

// The Python error that is set, as a C++ exception: the same object, with its traceback.
class PythonError : public std::exception {
 public:
  // Needs the lock and an error that is set.
  static PythonError fetch() {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PythonError error;
    error.type_ = share_new(type);
    error.value_ = share_new(value);
    error.traceback_ = share_new(traceback);
    return error;
  }

  // Sets it again. Needs the lock.
  void restore() const {
    PyErr_Restore(new_reference(type_.get()), new_reference(value_.get()),
                  new_reference(traceback_.get()));
  }

  const char* what() const noexcept override { return "an exception raised by Python code"; }

 private:
  Shared type_, value_, traceback_;
};

// Calls back into Python; the interpreter may switch threads inside, hence the parking.
template <class... Arguments>
Owned call(PyObject* function, Arguments*... arguments) {
  PyObject* result = or_park([&] {
    return PyObject_CallFunctionObjArgs(function, arguments..., static_cast<PyObject*>(nullptr));
  });
  if (!result) throw PythonError::fetch();
  return Owned(result);
}

// A function or class of one of the package's modules, kept for ever in `kept`: at exit imports fail. Null with an
// error set.
inline PyObject* from_package(PyObject*& kept, const char* module, const char* name) {
  if (!kept) {
    kept = or_park([=] {
      const Owned imported(PyImport_ImportModule(module));
      return imported ? PyObject_GetAttrString(imported.get(), name) : nullptr;
    });
  }
  return kept;
}

}  // namespace infinilm_py
