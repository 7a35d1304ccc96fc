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
  if (shown_ != nullptr) {
    ops.submit();
    shown_->push_back({point, layer, x.share({x.rows(), x.cols()}), trailing});
    return;
  }
  Shape shape = leading;
  shape.insert(shape.end(), trailing);
  const Tensor shown = x.deliver(shape);
  ops.submit();
  hooks_.run(point, layer, shown);
  ops.catch_up();
}

void Step::deliver(std::span<const Shown> shown) {
  if (shown.empty()) return;
  // All in one piece, which takes one copy to make, and one to send away.
  constexpr std::size_t kAlignment = 256;
  std::vector<std::size_t> offsets;
  std::size_t end = 0;
  for (const Shown& s : shown) {
    offsets.push_back(end);
    end += (s.tensor.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  const std::shared_ptr<Buffer> here = own_arena_.get(end);
  std::vector<Matrix> from, to;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const Tensor& t = shown[i].tensor;
    const auto in = [&](std::byte* data) {
      return Matrix{reinterpret_cast<float*>(data), t.shape()[0], t.shape()[1], t.shape()[1]};
    };
    from.push_back(in(t.data()));
    to.push_back(in(here->data() + offsets[i]));
  }
  ops.copy_each(from, to);
  const bool leaves = hooks_.wants_on_cpu();
  const auto bytes = static_cast<std::int64_t>(end);
  const Tensor sent = leaves ? Tensor(here, DataType::U8, {bytes}).to(Device(), true) : Tensor();
  for (std::size_t i = 0; i < shown.size(); ++i) {
    Shape shape = batch.leading;
    shape.insert(shape.end(), shown[i].trailing.begin(), shown[i].trailing.end());
    const auto part = [&](const std::shared_ptr<Buffer>& all) {
      return Tensor(all, DataType::F32, shape, {}, offsets[i]);
    };
    hooks_.keep(shown[i].point, shown[i].layer, part(here), leaves ? part(sent.buffer()) : sent);
  }
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
