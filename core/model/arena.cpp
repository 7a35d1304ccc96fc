#include "model/arena.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::int64_t kKeepSteps = 8;

}  // namespace

struct Arena::State {
  struct Free {
    std::shared_ptr<Buffer> memory;
    std::int64_t step;
  };
  explicit State(std::shared_ptr<Ops> o) : ops(std::move(o)) {}

  std::shared_ptr<Buffer> take(std::size_t size) {
    const std::lock_guard lock(mutex);
    auto& list = free[size];
    if (list.empty()) return nullptr;
    std::shared_ptr<Buffer> memory = std::move(list.back().memory);
    list.pop_back();
    return memory;
  }

  void give(std::shared_ptr<Buffer> memory) {
    const std::lock_guard lock(mutex);
    free[memory->nbytes()].push_back({std::move(memory), step});
  }

  // False if nothing lay idle.
  bool give_back() {
    std::map<std::size_t, std::vector<Free>> idle;  // freed after the unlock
    const std::lock_guard lock(mutex);
    idle.swap(free);
    return std::ranges::any_of(idle, [](const auto& list) { return !list.second.empty(); });
  }

  std::shared_ptr<Buffer> allocate(std::size_t size) {
    try {
      return ops->allocate(size);
    } catch (const OutOfMemory&) {
      if (!give_back_idle(*ops)) throw;
    }
    return ops->allocate(size);
  }

  std::shared_ptr<Ops> ops;
  std::mutex mutex;
  std::map<std::size_t, std::vector<Free>> free;
  std::int64_t step = 0;
};

// Those that give back what lies idle, of all models.
class Arena::Registry {
 public:
  static Registry& instance() {
    static Registry all;
    return all;
  }
  void add(const std::shared_ptr<State>& state) {
    const std::lock_guard lock(mutex_);
    std::erase_if(states_, [](const auto& known) { return known.expired(); });
    states_.push_back(state);
  }
  std::vector<std::shared_ptr<State>> of(const Ops& ops) {
    std::vector<std::shared_ptr<State>> found;
    const std::lock_guard lock(mutex_);
    for (const auto& known : states_) {
      const auto state = known.lock();
      if (state && state->ops.get() == &ops) found.push_back(state);
    }
    return found;
  }

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<State>> states_;
};

bool Arena::give_back_idle(const Ops& ops) {
  bool any = false;
  for (const auto& state : Registry::instance().of(ops)) any = state->give_back() || any;
  return any;
}

void Arena::give_back_all(Ops& ops) {
  ops.give_back();
  give_back_idle(ops);
}

Arena::Arena(std::shared_ptr<Ops> ops, Idle idle)
    : state_(std::make_shared<State>(std::move(ops))) {
  if (idle == Idle::GivenBack) Registry::instance().add(state_);
}

std::shared_ptr<Buffer> Arena::get(std::size_t nbytes) { return lend(nbytes, size_class(nbytes)); }

std::shared_ptr<Buffer> Arena::get_exact(std::size_t nbytes) { return lend(nbytes, nbytes); }

std::shared_ptr<Buffer> Arena::lend(std::size_t nbytes, std::size_t size) {
  std::shared_ptr<Buffer> memory = state_->take(size);
  if (!memory) memory = state_->allocate(size);
  void* data = memory->data();
  const Device device = memory->device();
  // The handed-out buffer borrows from `memory`; dropping it returns the memory to the list.
  std::shared_ptr<void> lease(data, [memory, weak = std::weak_ptr<State>(state_)](void*) mutable {
    if (const auto state = weak.lock()) state->give(std::move(memory));
  });
  return std::make_shared<Buffer>(data, nbytes, device, std::move(lease));
}

void Arena::end_step() {
  std::vector<std::shared_ptr<Buffer>> old;  // freed after the unlock
  const std::lock_guard lock(state_->mutex);
  ++state_->step;
  for (auto& [size, list] : state_->free) {
    std::erase_if(list, [&](State::Free& entry) {
      if (entry.step + kKeepSteps > state_->step) return false;
      old.push_back(std::move(entry.memory));
      return true;
    });
  }
}

Activation::Activation(Arena& arena, Ops& ops, std::int64_t rows, std::int64_t cols)
    : arena_(&arena),
      ops_(&ops),
      buffer_(arena.get(static_cast<std::size_t>(rows * cols) * sizeof(float))),
      rows_(rows),
      cols_(cols) {}

Matrix Activation::view() const noexcept {
  return {reinterpret_cast<float*>(buffer_->data()), rows_, cols_, cols_};
}

Matrix Activation::writable() {
  if (is_shared()) {
    const Matrix old = view();
    const std::shared_ptr<Buffer> kept = buffer_;
    buffer_ = arena_->get(kept->nbytes());
    ops_->copy(old, view());
  }
  return view();
}

Activation::Update Activation::update() {
  if (!is_shared()) return {view(), view(), nullptr};
  const Matrix from = view();
  std::shared_ptr<Buffer> kept = buffer_;
  return {from, fresh(), std::move(kept)};
}

Matrix Activation::fresh() {
  if (is_shared()) buffer_ = arena_->get(buffer_->nbytes());
  return view();
}

Tensor Activation::deliver(const Shape& shape) {
  writable();
  return Tensor(buffer_, DataType::F32, shape);
}

}  // namespace infinilm
