// Activation buffers: reference counted, recycled, never rewritten while somebody else holds them.
#pragma once

#include <memory>

#include "infinilm/tensor.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// A free list of device memory. A buffer goes back to it when its last holder drops it, on whatever thread and
// also after the arena itself is gone (then the memory is freed). Thread-safe.
class Arena {
 public:
  // Whether what lies idle is given back when the device has too little left for any arena of it.
  enum class Idle { GivenBack, Kept };
  explicit Arena(std::shared_ptr<Ops> ops, Idle idle = Idle::GivenBack);
  // At least `nbytes`, of memory rounded up so that near sizes share it.
  std::shared_ptr<Buffer> get(std::size_t nbytes);
  // Just `nbytes`: for what is asked for again and again in one size.
  std::shared_ptr<Buffer> get_exact(std::size_t nbytes);
  // Marks the end of a step: memory that no recent step has used is given back to the system.
  void end_step();
  // Gives back at once what nobody holds, in all arenas of these operations that do. False if nothing lay idle. Arenas do so by
  // themselves in need.
  static bool give_back_idle(const Ops& ops);
  // And what the operations keep for themselves.
  static void give_back_all(Ops& ops);

 private:
  struct State;
  class Registry;
  std::shared_ptr<Buffer> lend(std::size_t nbytes, std::size_t size);

  std::shared_ptr<State> state_;
};

// One value of the step: a float32 matrix in an arena buffer. The one place that keeps the promise about kept
// tensors: whoever writes asks `writable` or `fresh`, whoever shows it to a callback asks `deliver`; each
// moves on to another buffer if somebody outside still holds the present one.
class Activation {
 public:
  Activation() = default;
  Activation(Arena& arena, Ops& ops, std::int64_t rows, std::int64_t cols);

  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t cols() const noexcept { return cols_; }

  // To read from.
  Matrix view() const noexcept;
  // To change in place: the values are kept.
  Matrix writable();
  // To overwrite wholly: the values are lost.
  Matrix fresh();
  // For a result that takes in the values of now: where they are, and where it goes, which is the same place unless somebody holds that.
  struct Update {
    Matrix from, to;
    std::shared_ptr<Buffer> kept;  // `from` is there as long as this
  };
  Update update();
  // For a hook: a tensor of `shape` on this memory, which nobody else holds.
  Tensor deliver(const Shape& shape);

 private:
  bool is_shared() const noexcept { return buffer_.use_count() > 1; }

  Arena* arena_ = nullptr;
  Ops* ops_ = nullptr;
  std::shared_ptr<Buffer> buffer_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
};

}  // namespace infinilm
