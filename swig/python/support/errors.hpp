// The core's exceptions as Python's.
#pragma once

#include <cerrno>
#include <new>
#include <string>

#include "infinilm/error.hpp"
#include "support/object.hpp"

namespace infinilm_py {

inline Owned text_object(const std::string& text) {
  return Owned(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

inline void set_error(PyObject* type, const std::string& text) {
  const Owned object = text_object(text);
  if (object) PyErr_SetObject(type, object.get());
}

// FileNotFoundError with `errno`, `strerror` and `filename`; the text ends with the path, which stands after the last
// ": ". Shown as Python shows its own: "[Errno 2] no such file or directory: '/a/b'".
inline void set_file_not_found(const std::string& text) {
  const std::size_t colon = text.rfind(": ");
  if (colon == std::string::npos) return set_error(PyExc_FileNotFoundError, text);
  const Owned reason = text_object(text.substr(0, colon));
  const Owned path = text_object(text.substr(colon + 2));
  if (!reason || !path) return;
  const Owned error(
      PyObject_CallFunction(PyExc_FileNotFoundError, "iOO", ENOENT, reason.get(), path.get()));
  if (error) PyErr_SetObject(PyExc_FileNotFoundError, error.get());
}

// Sets the Python error for the exception that is being handled. Needs the lock. Only for what derives from
// std::exception: the forced unwinding of a thread must pass.
inline void set_error_from_exception() {
  try {
    throw;
  } catch (const PythonError& e) {
    e.restore();
  } catch (const infinilm::ValueError& e) {
    set_error(PyExc_ValueError, e.what());
  } catch (const infinilm::TypeError& e) {
    set_error(PyExc_TypeError, e.what());
  } catch (const infinilm::IndexError& e) {
    set_error(PyExc_IndexError, e.what());
  } catch (const infinilm::KeyError& e) {
    set_error(PyExc_KeyError, e.what());
  } catch (const infinilm::OverflowError& e) {
    set_error(PyExc_OverflowError, e.what());
  } catch (const infinilm::FileNotFoundError& e) {
    set_file_not_found(e.what());
  } catch (const infinilm::OsError& e) {
    set_error(PyExc_OSError, e.what());
  } catch (const infinilm::Cancelled& e) {
    set_error(PyExc_KeyboardInterrupt, e.what());
  } catch (const std::bad_alloc&) {
    set_error(PyExc_MemoryError, "out of memory in the engine");
  } catch (const std::exception& e) {
    set_error(PyExc_RuntimeError, e.what());
  }
}

}  // namespace infinilm_py
