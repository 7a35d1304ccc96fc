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
    shown_->push_back({point, layer, x, trailing});
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
  constexpr std::size_t kAlignment = 256;
  std::vector<Matrix> from, to;
  const auto add_copy = [&](const Shown& s, std::byte* data) {
    const std::int64_t rows = s.values.rows(), cols = s.values.cols();
    from.push_back(s.values.view());
    to.push_back({reinterpret_cast<float*>(data), rows, cols, cols});
  };
  // On the device each value has memory of its own; what leaves for the CPU does so in one piece.
  std::vector<std::shared_ptr<Buffer>> here(shown.size());
  std::vector<HookRunner::Where> where;
  std::vector<std::size_t> offsets;
  std::size_t end = 0;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const auto nbytes =
        static_cast<std::size_t>(shown[i].values.rows() * shown[i].values.cols()) * sizeof(float);
    where.push_back(hooks_.where(shown[i].point, shown[i].layer));
    offsets.push_back(end);
    if (where[i].on_cpu) end += (nbytes + kAlignment - 1) / kAlignment * kAlignment;
    if (!where[i].here) continue;
    here[i] = own_arena_.get(nbytes);
    add_copy(shown[i], here[i]->data());
  }
  const std::shared_ptr<Buffer> leaving = end > 0 ? own_arena_.get(end) : nullptr;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    if (where[i].on_cpu) add_copy(shown[i], leaving->data() + offsets[i]);
  }
  ops.copy_each(from, to);
  const Shape bytes = {static_cast<std::int64_t>(end)};
  const Tensor sent = leaving ? Tensor(leaving, DataType::U8, bytes).to(Device(), true) : Tensor();
  for (std::size_t i = 0; i < shown.size(); ++i) {
    Shape shape = batch.leading;
    shape.insert(shape.end(), shown[i].trailing.begin(), shown[i].trailing.end());
    const auto part = [&](const std::shared_ptr<Buffer>& all, std::size_t offset) {
      return all ? Tensor(all, DataType::F32, shape, {}, offset) : Tensor();
    };
    hooks_.keep(shown[i].point, shown[i].layer, part(here[i], 0),
                part(where[i].on_cpu ? sent.buffer() : nullptr, offsets[i]));
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
