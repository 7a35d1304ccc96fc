// The interpreter lock, taken and released so that a thread which outlives the interpreter sleeps instead of aborting.
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#if defined(__GLIBC__)
#include <cxxabi.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstdint>

namespace infinilm_py {

// Set by Python's atexit, before finalisation: from then on no Python object is touched any more.
inline std::atomic<bool> shutting_down{false};

// How often Python was called back while the calling thread held the lock already, that is: from a wrapper that does
// not release it. Stays 0; a test looks.
inline std::atomic<std::int64_t> callbacks_under_lock{0};

// Until 3.13 a thread that asks for the lock during finalisation is ended by pthread_exit, whose forced unwinding
// aborts in the first noexcept destructor. What 3.14 does itself, this does everywhere: the thread is held.
#if defined(__GLIBC__)
// (What is caught is no object: its reference is null, of which the sanitizer need not tell us.)
template <class F>
__attribute__((no_sanitize("undefined"))) auto or_park(F f) {
  try {
    return f();
  } catch (abi::__forced_unwind&) {
    for (;;) pause();
  }
}
#else
template <class F>
auto or_park(F f) {
  return f();
}
#endif

// Holds the lock for a scope, on any thread, whether or not that thread has it already.
class Gil {
 public:
  Gil() : state_(or_park([] { return PyGILState_Ensure(); })) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

  bool was_held() const noexcept { return state_ == PyGILState_LOCKED; }

 private:
  PyGILState_STATE state_;
};

// Releases the lock until `end` or the end of the scope.
class NoGil {
 public:
  NoGil() : thread_(PyEval_SaveThread()) {}
  ~NoGil() { end(); }
  NoGil(const NoGil&) = delete;
  NoGil& operator=(const NoGil&) = delete;

  void end() {
    if (!thread_) return;
    PyThreadState* thread = thread_;
    thread_ = nullptr;
    or_park([thread] { PyEval_RestoreThread(thread); });
  }

 private:
  PyThreadState* thread_;
};

}  // namespace infinilm_py

// SWIG's wrappers use these guards instead of its own.
#define SWIG_PYTHON_NO_USE_GIL
#define SWIG_PYTHON_THREAD_BEGIN_ALLOW infinilm_py::NoGil swig_thread_allow
#define SWIG_PYTHON_THREAD_END_ALLOW swig_thread_allow.end()
#define SWIG_PYTHON_THREAD_BEGIN_BLOCK infinilm_py::Gil swig_thread_block
#define SWIG_PYTHON_THREAD_END_BLOCK static_cast<void>(swig_thread_block)
