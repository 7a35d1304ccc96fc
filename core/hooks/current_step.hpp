// The forward pass that runs on this thread, for hooks and captures to ask about.
#pragma once

#include "infinilm/hooks.hpp"

namespace infinilm {

// Null outside of hooks.
const StepInfo* running_step() noexcept;

// Makes `info` the step of this thread, until the end of the scope (hooks may run another model).
class StepScope {
 public:
  explicit StepScope(const StepInfo& info) noexcept;
  ~StepScope();
  StepScope(const StepScope&) = delete;
  StepScope& operator=(const StepScope&) = delete;

 private:
  const StepInfo* outer_;
};

}  // namespace infinilm
