// What one forward pass carries along: its rows, its device, its hooks.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "hooks/plan.hpp"
#include "model/arena.hpp"
#include "model/kv_cache.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// The tokens of all sequences in one row dimension, T. The leading dimensions of a hook's tensors are `leading`: [tokens],
// [batch, tokens], or [all tokens] where sequences of different lengths run together.
struct Batch {
  std::vector<std::int64_t> ids;
  std::vector<SequenceRows> sequences;
  KvLayout kv;  // of the sequences' blocks
  Shape leading;
  Choice* chosen = nullptr;  // if not null, it finds the ids, which are not known yet

  std::int64_t rows() const noexcept { return static_cast<std::int64_t>(ids.size()); }
  bool is_rectangular() const noexcept { return leading.size() == 2; }
  // The longest sequence with its past: S of the attention scores.
  std::int64_t longest() const noexcept;
};

// What a hook point holds, for who can wait: shown as the step's leading dimensions and `trailing`.
struct Shown {
  Point point;
  int layer;
  Activation values;  // held, so that nobody writes to them
  Shape trailing;
};

class Step {
 public:
  Step(Ops& device_ops, Arena& buffers, Batch rows_of_all, HookRunner hook_runner,
       Frontend& frontend);

  Ops& ops;
  const Batch batch;

  // A new value of the step, [T, cols], not initialised.
  Activation make(std::int64_t cols) { return make(batch.rows(), cols); }
  Activation make(std::int64_t rows, std::int64_t cols) {
    return Activation(*arena_, ops, rows, cols);
  }
  // From here on hooks and captures are those of now, and nobody is called. False, and nothing changes, if anybody has to see
  // anything before the step has ended.
  bool freeze_hooks() { return hooks_.freeze(); }
  // Where captures are, by point_index.
  std::span<const std::size_t> wanted() { return hooks_.wanted(); }
  // From here on, once hooks are frozen, values are made in another arena, for what is to be run again: nobody is asked whether to
  // go on, and what captures want is noted in `shown`.
  void work_in(Arena& arena, std::vector<Shown>& shown) {
    arena_ = &arena;
    shown_ = &shown;
  }
  void work_outside() noexcept {
    arena_ = &own_arena_;
    shown_ = nullptr;
    hooks_.thaw();
  }
  // Copies what was noted for the captures that want it; before working outside again.
  void deliver(std::span<const Shown> shown);
  // Lets captures see what they keep of this step.
  void hand_over() { hooks_.hand_over(); }
  std::vector<HookRunner::Kept> take_kept() { return hooks_.take_kept(); }
  Arena& own_arena() noexcept { return own_arena_; }

  bool wants(Point point, int layer = -1) { return hooks_.wants(point, layer); }

  // A hook point: shows `x` to whoever asked, as [leading…, trailing…]; does nothing else if nobody did.
  void point(Point point, int layer, Activation& x, std::initializer_list<std::int64_t> trailing) {
    if (wants(point, layer)) [[unlikely]]
      show(point, layer, x, batch.leading, trailing);
  }
  // The same with leading dimensions of its own.
  void show(Point point, int layer, Activation& x, const Shape& leading,
            std::initializer_list<std::int64_t> trailing);

  // Asks the frontend, at most every 50 ms, whether to go on. Throws Cancelled if not.
  void poll();

 private:
  Arena& own_arena_;
  Arena* arena_ = &own_arena_;
  std::vector<Shown>* shown_ = nullptr;  // where points are noted instead
  HookRunner hooks_;
  Frontend& frontend_;
};

}  // namespace infinilm
