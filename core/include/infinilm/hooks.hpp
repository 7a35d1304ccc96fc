// Looking inside: named points of the forward pass, callbacks on them, and the registry that holds those.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "infinilm/tensor.hpp"

namespace infinilm {

/// `name` as the point is called in this model (with the model's prefix, or the alias it was registered
/// under); `tensor` is the engine's own memory: writing into it edits the computation from here on;
/// `layer_idx` is -1 where there is none. What it throws stops the forward pass and reaches its caller.
using HookCallback =
    std::function<void(const std::string& name, const Tensor& tensor, int layer_idx)>;

class CaptureStore;

/// One registration: a callback, or a capture. Never changed once made, except by its counters.
struct HookEntry {
  HookEntry(std::string name, HookCallback callback);
  HookEntry(std::string name, std::shared_ptr<CaptureStore> store);
  ~HookEntry();
  HookEntry(const HookEntry&) = delete;
  HookEntry& operator=(const HookEntry&) = delete;

  /// Calls the callback.
  void fire(const std::string& point, const Tensor& tensor, int layer_idx) const;
  bool is_capture() const noexcept { return store != nullptr; }

  const std::string name;
  const HookCallback callback;                ///< null for a capture
  const std::shared_ptr<CaptureStore> store;  ///< null for a callback
  /// How often it has fired; shared with the handle, which outlives the entry.
  const std::shared_ptr<std::atomic<std::int64_t>> calls;
  std::atomic<bool> warned{false};  ///< that it matches nothing
};

class Capture;
class HookRegistry;

/// What `register_hook` returns. Keeps neither the registry nor the callback alive.
class HookHandle {
 public:
  HookHandle(std::weak_ptr<HookRegistry> registry, const std::shared_ptr<HookEntry>& entry);
  /// Takes the registration out; does nothing if it is already gone (removed, replaced or cleared).
  void remove();
  std::int64_t calls() const noexcept { return calls_->load(); }
  const std::string& name() const noexcept { return name_; }
  bool active() const noexcept;

 private:
  std::weak_ptr<HookRegistry> registry_;
  std::weak_ptr<HookEntry> entry_;
  std::string name_;
  std::shared_ptr<std::atomic<std::int64_t>> calls_;
};

/// The points of one model, as a registry that it is attached to sees them.
struct HookScope {
  std::size_t num_layers = 0;
  std::string prefix;
};

/// Registrations in the order they were made. All members may be called from any thread and from inside a
/// callback; a change takes effect at the next hook point reached, in every model and thread.
class HookRegistry : public std::enable_shared_from_this<HookRegistry> {
 public:
  /// `name`: a hook point, an alias of one, or a glob over the whole name: `*`, `?`, `[…]`, `[!…]` as in
  /// fnmatch, and `#` for a number. The same name again replaces the callback and keeps its place.
  /// Throws ValueError for an empty name or a null callback.
  std::shared_ptr<HookHandle> register_hook(const std::string& name, HookCallback callback);
  /// Keeps what the points hold that `name` matches, as hooks registered before this left it; with `to_cpu` on the CPU, for which it
  /// leaves a device while the model runs on. A name may have any number of captures. ValueError for an empty name.
  std::shared_ptr<Capture> capture(const std::string& name, bool to_cpu = false);
  /// Takes out all hooks and captures; what these have kept stays theirs.
  void clear();
  bool has_hooks() const noexcept { return count_.load(std::memory_order_relaxed) != 0; }
  /// Fires every registration that matches `name`, in order.
  void call_hook(const std::string& name, const Tensor& tensor, int layer_idx = -1);
  std::size_t size() const noexcept { return count_.load(std::memory_order_relaxed); }
  std::vector<std::string> names() const;

  /// For plans: the registrations now, and a number that changes with every change of them.
  std::vector<std::shared_ptr<HookEntry>> entries() const;
  std::uint64_t generation() const noexcept { return generation_.load(std::memory_order_acquire); }
  const std::atomic<std::size_t>& count() const noexcept { return count_; }
  /// The models that the registry is attached to; a scope that has died is gone from the list.
  void attach(std::weak_ptr<const HookScope> scope);
  std::vector<std::shared_ptr<const HookScope>> scopes() const;

 private:
  friend class HookHandle;
  bool contains(const std::shared_ptr<HookEntry>& entry) const;
  void remove(const std::shared_ptr<HookEntry>& entry);
  void changed();  ///< with mutex_ held

  mutable std::mutex mutex_;  ///< guards entries_ only: never held while a callback runs or dies
  std::vector<std::shared_ptr<HookEntry>> entries_;
  std::vector<std::weak_ptr<const HookScope>> scopes_;
  std::atomic<std::size_t> count_{0};
  std::atomic<std::uint64_t> generation_{0};
};

/// How many registrations (HookEntry) are alive in the process: for leak tests.
std::int64_t live_hook_entries() noexcept;

/// True if `name` has a character that makes it a glob.
bool is_glob(std::string_view name) noexcept;
/// fnmatch over the whole name, where `#` stands for one or more digits.
bool glob_match(std::string_view pattern, std::string_view name);

/// A model's hook point, as `hook_points()` lists it.
struct HookPoint {
  std::string name;                  ///< "layer0_mlp"
  std::string shape;                 ///< "[T, H]", with the letters of docs/hooks.md
  std::string shape_values;          ///< "[T, 64]": the same with this model's numbers
  std::string when;                  ///< "after down_proj"
  std::vector<std::string> aliases;  ///< {"layer0_mlp_output"}
  int layer_idx = -1;
};

/// One row of the table of hook points; `{i}` stands for the layer. Source of docs/hooks.md.
struct HookPointPattern {
  std::string name;
  std::string shape;
  std::string when;
  std::vector<std::string> aliases;
  bool per_layer = false;
};
const std::vector<HookPointPattern>& hook_point_table();

/// The sequences of the forward pass that is running on this thread: which rows of [T, …] are whose.
/// Empty outside of a callback.
struct StepSequence {
  std::int64_t row_begin = 0;  ///< first row of this sequence in the leading dimension, flattened
  std::int64_t rows = 0;       ///< tokens of this sequence in this step
  std::int64_t position = 0;   ///< position of its first token
  std::int64_t slot = 0;       ///< index of the sequence in the batch (in its KV cache)
};
struct StepInfo {
  std::int64_t step = 0;  ///< how many forward passes this model has begun, counting from 0
  std::vector<StepSequence> sequences;
};
/// Throws Error outside of a hook.
const StepInfo& current_step();

}  // namespace infinilm

// `prefix_name`, or `name` for an empty prefix.
#define BUILD_HOOK_PREFIX(prefix, name) \
  ((prefix).empty() ? std::string(name) : std::string(prefix) + "_" + std::string(name))

// For models of your own: `registry` is a (shared) pointer to a HookRegistry or null; nothing but the two
// tests runs when no hook is set, `name` is not evaluated then.
#define CALL_HOOK(registry, name, tensor)                   \
  do {                                                      \
    if ((registry) && (registry)->has_hooks()) [[unlikely]] \
      (registry)->call_hook((name), (tensor), -1);          \
  } while (false)
#define CALL_HOOK_LAYER(registry, name, tensor, layer_idx)  \
  do {                                                      \
    if ((registry) && (registry)->has_hooks()) [[unlikely]] \
      (registry)->call_hook((name), (tensor), (layer_idx)); \
  } while (false)
