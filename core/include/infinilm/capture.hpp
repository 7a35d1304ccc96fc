// Captures: what hook points hold, kept pass after pass without a callback.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/hooks.hpp"

namespace infinilm {

/// What a capture has kept of one point in one forward pass.
class Captured {
 public:
  Captured(std::string name, int layer_idx, Tensor tensor, StepInfo step)
      : name_(std::move(name)),
        layer_idx_(layer_idx),
        tensor_(std::move(tensor)),
        step_(std::move(step)) {}

  /// As a callback would get it.
  const std::string& name() const noexcept { return name_; }
  /// -1 where there is none.
  int layer_idx() const noexcept { return layer_idx_; }
  /// float32, of the point's shape (of `call_hook` a copy of what was given); the engine does not use it any more.
  Tensor tensor() const { return tensor_; }
  std::size_t nbytes() const { return tensor_.nbytes(); }
  /// The pass, and which rows are whose.
  StepInfo step() const { return step_; }

 private:
  std::string name_;
  int layer_idx_;
  Tensor tensor_;
  StepInfo step_;
};

class CaptureStore;

/// What `HookRegistry::capture` returns: keeps the values of all points that it matches until it is removed, or dropped. Those of a
/// pass are there when it has ended. Since it only reads, a device may record steps that nobody else watches, as it does without.
/// Thread-safe.
class Capture {
 public:
  Capture(std::weak_ptr<HookRegistry> registry, const std::shared_ptr<HookEntry>& entry);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// Keeps nothing more; what it has stays.
  void remove() { handle_.remove(); }
  /// How many values it has been given.
  std::int64_t calls() const noexcept { return handle_.calls(); }
  const std::string& name() const noexcept { return handle_.name(); }
  bool active() const noexcept { return handle_.active(); }

  /// How many values it keeps.
  std::size_t size() const;
  /// All that it keeps: passes in the order in which they ended, points in that of execution. Captures of one point may share its tensor.
  std::vector<Captured> values() const;
  /// Those of one point, by its name.
  std::vector<Captured> of(const std::string& point) const;
  /// The same, and lets go of them.
  std::vector<Captured> take();

 private:
  HookHandle handle_;
  std::shared_ptr<CaptureStore> store_;
};

}  // namespace infinilm
