// Python callables as the core's callbacks.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/error.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/generate.hpp"
#include "infinilm/hooks.hpp"
#include "support/sequences.hpp"

namespace infinilm_py {

// A callable that lives in a Slot (infinilm._slots) of its registry's proxy and is held weakly here, so that gc sees every
// cycle through it. When the core drops the callback, the slot leaves its table.
class WeakSlot {
 public:
  explicit WeakSlot(PyObject* slot) : reference_(share_new(PyWeakref_NewRef(slot, nullptr))) {
    if (!reference_) throw PythonError::fetch();
  }
  ~WeakSlot() {
    if (shutting_down) return;
    const Gil gil;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    or_park([this] {
      const Owned slot(PyObject_CallNoArgs(reference_.get()));
      if (slot && slot.get() != Py_None) Owned(PyObject_CallMethod(slot.get(), "drop", nullptr));
    });
    PyErr_Restore(type, value, traceback);
  }
  WeakSlot(const WeakSlot&) = delete;
  WeakSlot& operator=(const WeakSlot&) = delete;

  Owned callback() const {
    const Owned slot(call(reference_.get()));
    infinilm::check<infinilm::Error>(
        slot.get() != Py_None, "the object that held this callback is gone: keep the registry");
    Owned function(PyObject_GetAttrString(slot.get(), "callback"));
    if (!function) throw PythonError::fetch();
    return function;
  }

 private:
  Shared reference_;
};

// The lock for the time of one callback, noting whether the wrapper had forgotten to release it.
class CallbackLock {
 public:
  CallbackLock() {
    if (gil_.was_held()) ++callbacks_under_lock;
  }

 private:
  Gil gil_;
};

inline void check_made(std::initializer_list<PyObject*> objects) {
  for (PyObject* object : objects) {
    if (!object) throw PythonError::fetch();
  }
}

struct Hook {
  std::shared_ptr<WeakSlot> slot;

  void operator()(const std::string& name, const infinilm::Tensor& tensor, int layer_idx) const {
    if (shutting_down) return;
    const CallbackLock lock;
    const Owned a(from_value(name)), b(from_value(tensor)), c(from_value(layer_idx));
    check_made({a.get(), b.get(), c.get()});
    call(slot->callback().get(), a.get(), b.get(), c.get());
  }
};

struct Processor {
  std::shared_ptr<WeakSlot> slot;

  void operator()(const infinilm::TokenIds& tokens, const infinilm::Tensor& logits) const {
    if (shutting_down) return;
    const CallbackLock lock;
    const Owned a(from_value(tokens)), b(from_value(logits));
    check_made({a.get(), b.get()});
    call(slot->callback().get(), a.get(), b.get());
  }
};

struct Progress {
  Shared function;

  void operator()(std::size_t done, std::size_t total) const {
    if (shutting_down) return;
    const CallbackLock lock;
    const Owned a(from_value(done)), b(from_value(total));
    check_made({a.get(), b.get()});
    call(function.get(), a.get(), b.get());
  }
};

// Hooks and processors come in slots, made by the proxies' methods.
inline bool to_slot(PyObject* object, const std::string& field, std::shared_ptr<WeakSlot>& slot) {
  static PyObject* kept = nullptr;
  PyObject* type = from_package(kept, "infinilm._slots", "Slot");
  const int matches = type ? PyObject_IsInstance(object, type) : -1;
  if (matches < 0) return false;
  if (matches == 0) return type_error(field, "callable", object);
  slot = std::make_shared<WeakSlot>(object);
  return true;
}

inline bool to_value(PyObject* object, const std::string& field, infinilm::HookCallback& value) {
  Hook hook;
  if (!to_slot(object, field, hook.slot)) return false;
  value = std::move(hook);
  return true;
}

inline bool to_value(PyObject* object, const std::string& field,
                     std::vector<infinilm::LogitsProcessor>& values) {
  return to_vector(object, field, "a sequence of callables", values,
                   [](PyObject* item, const std::string& name, infinilm::LogitsProcessor& value) {
                     if (item == Py_None) return true;
                     Processor processor;
                     if (!to_slot(item, name, processor.slot)) return false;
                     value = std::move(processor);
                     return true;
                   });
}

inline bool to_value(PyObject* object, const std::string& field,
                     infinilm::ProgressCallback& value) {
  if (object == Py_None) return true;
  if (!PyCallable_Check(object)) return type_error(field, "callable or None", object);
  value = Progress{share(object)};
  return true;
}

// Warnings through `warnings`, Ctrl-C through Python's signal handlers.
class PythonFrontend : public infinilm::Frontend {
 public:
  void warn(const std::string& text) override {
    if (shutting_down) return;
    const CallbackLock lock;
    static PyObject* kept = nullptr;
    PyObject* function = from_package(kept, "infinilm._warning", "warn");
    const Owned object(from_value(text));
    check_made({function, object.get()});
    call(function, object.get());
  }

  // Never true: what the signal handler raised is thrown instead.
  bool interrupted() override {
    if (shutting_down) return false;
    const CallbackLock lock;
    if (or_park([] { return PyErr_CheckSignals(); }) < 0) throw PythonError::fetch();
    return false;
  }
};

inline infinilm::Frontend& frontend() {
  static PythonFrontend instance;
  return instance;
}

}  // namespace infinilm_py
