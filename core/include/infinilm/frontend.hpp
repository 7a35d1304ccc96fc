// What a language supplies to the core: the channel for warnings and the check for Ctrl-C.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace infinilm {

// One object per binding, passed to every call that may run long. Both functions may throw the language's
// own error (carried through the core unchanged); they are called on the thread that called the core.
class Frontend {
 public:
  virtual ~Frontend() = default;
  // A warning for the user, one sentence or a few. Throws if the user turned warnings into errors.
  virtual void warn(const std::string& text) = 0;
  // True to stop: the core then throws Cancelled. Asked between layers, at most every 50 ms.
  virtual bool interrupted() = 0;
};

// Warnings to standard error, never interrupted: what a plain C++ program gets.
Frontend& default_frontend();

// `(done, total)` in bytes; called on the calling thread, often enough for a progress bar.
using ProgressCallback = std::function<void(std::size_t done, std::size_t total)>;

}  // namespace infinilm
