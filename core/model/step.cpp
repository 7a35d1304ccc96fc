#include "model/step.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "infinilm/error.hpp"

namespace infinilm {

std::int64_t Batch::longest() const noexcept {
  std::int64_t longest = 0;
  for (const SequenceRows& s : sequences) longest = std::max(longest, s.past + s.rows);
  return longest;
}

Step::Step(Ops& device_ops, Arena& buffers, Batch rows_of_all, HookRunner hook_runner,
           Frontend& frontend)
    : ops(device_ops),
      batch(std::move(rows_of_all)),
      own_arena_(buffers),
      hooks_(std::move(hook_runner)),
      frontend_(frontend) {}

void Step::show(Point point, int layer, Activation& x, const Shape& leading,
                std::initializer_list<std::int64_t> trailing) {
  Shape shape = leading;
  shape.insert(shape.end(), trailing);
  const Tensor shown = x.deliver(shape);
  ops.submit();
  hooks_.run(point, layer, shown);
  ops.catch_up();
}

void Step::poll() {
  if (arena_ != &own_arena_) return;
  using Clock = std::chrono::steady_clock;
  constexpr auto kPeriod = std::chrono::milliseconds(50);
  // Of the thread, not of the step: a step of decoding may be much shorter than the period.
  thread_local Clock::time_point last = Clock::now();
  const auto now = Clock::now();
  if (now - last < kPeriod) return;
  last = now;
  check<Cancelled>(!frontend_.interrupted(), "cancelled");
}

}  // namespace infinilm
