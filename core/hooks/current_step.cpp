#include "hooks/current_step.hpp"

#include <utility>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

thread_local const StepInfo* current = nullptr;

}  // namespace

const StepInfo* running_step() noexcept { return current; }

const StepInfo& current_step() {
  check<Error>(current != nullptr, "there is a current step only inside of a hook");
  return *current;
}

StepScope::StepScope(const StepInfo& info) noexcept : outer_(std::exchange(current, &info)) {}

StepScope::~StepScope() { current = outer_; }

}  // namespace infinilm
