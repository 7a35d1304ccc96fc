// What a registry means for one model: its globs expanded once, and the runner that fires them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hooks/points.hpp"
#include "infinilm/capture.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/hooks.hpp"

namespace infinilm {

// The callbacks of every point of a model of `scope`, for the registrations that it was made from. Holds no callback
// alive: one that was removed meanwhile is skipped.
class HookPlan {
 public:
  struct Call {
    std::weak_ptr<HookEntry> entry;
    std::string name;  // as the callback gets it
  };

  HookPlan(const HookRegistry& registry, const HookScope& scope);
  std::uint64_t generation() const noexcept { return generation_; }
  std::span<const Call> calls(Point point, int layer) const noexcept;
  // The points that any registration matches, by point_index.
  std::span<const std::size_t> wanted() const noexcept { return wanted_; }
  bool has_callbacks() const noexcept { return has_callbacks_; }
  // True if they are all captures, of points that do not change their shape from step to step.
  bool can_wait() const noexcept { return can_wait_; }

 private:
  std::uint64_t generation_;
  std::size_t num_layers_;
  std::vector<std::vector<Call>> calls_;  // by point_index
  std::vector<std::size_t> wanted_;
  bool has_callbacks_ = false;
  bool can_wait_ = true;
};

// What a point of a model of some scope is called.
struct PointNames {
  PointNames(const HookPointPattern& point, int layer, const std::string& prefix);
  // The full name or the alias under which a registration called `registered` hears the point; empty
  // if it does not.
  std::string match(const std::string& registered) const;

  std::string bare, full;                                    // without and with the prefix
  std::vector<std::pair<std::string, std::string>> aliases;  // the same
};

// A model's connection to its registry, for as long as it lasts: the plan and the number of steps.
class HookConnection {
 public:
  HookConnection(std::shared_ptr<HookRegistry> registry, std::size_t num_layers,
                 const std::string& prefix);

  // May be null.
  const std::shared_ptr<HookRegistry>& registry() const noexcept { return registry_; }
  const std::string& prefix() const noexcept { return scope_->prefix; }
  // Changes whenever hooks or captures come or go.
  std::uint64_t generation() const noexcept { return registry_ ? registry_->generation() : 0; }

  // The plan for the registrations of now. Warns, once for each registration, about names that match no
  // point of any model that the registry is attached to.
  std::shared_ptr<const HookPlan> plan(Frontend& frontend);

 private:
  void warn_unmatched(Frontend& frontend) const;

  std::shared_ptr<HookRegistry> registry_;
  std::shared_ptr<const HookScope> scope_;
  std::mutex mutex_;  // guards plan_
  std::shared_ptr<const HookPlan> plan_;
};

// The hooks of one forward pass. Follows changes of the registry from point to point.
class HookRunner {
 public:
  HookRunner(std::shared_ptr<HookConnection> connection, Frontend& frontend, StepInfo info);

  // True if somebody wants to see `point` now.
  bool wants(Point point, int layer) {
    if (!is_active()) [[likely]]
      return false;
    return !calls(point, layer).empty();
  }
  // True if there is a callback on any point.
  bool wants_callbacks();
  // Fires the callbacks of `point` and notes what captures keep, in the order of their registration.
  void run(Point point, int layer, const Tensor& tensor);
  // What a capture is to be given of this pass. Keeps no entry alive: one that was removed hears nothing more.
  struct Kept {
    std::shared_ptr<CaptureStore> store;
    Captured value;
  };
  // Gives captures what was noted since the last time: they see a pass when it has ended.
  void hand_over() { hand_over(take_kept(), info_.step); }
  // The same for somebody who does so later, or never.
  std::vector<Kept> take_kept() { return std::exchange(kept_, {}); }
  static void hand_over(std::vector<Kept> kept, std::int64_t step);

  // From here to thaw() the registrations of now are what counts, whatever becomes of the registry, and captures are given what they
  // keep when the step has ended. False, and nothing changes, if that cannot be: somebody has to see a point before the step goes
  // on, or wants one that changes its shape from step to step.
  bool freeze();
  void thaw() noexcept;
  // The points that anybody wants, by point_index.
  std::span<const std::size_t> wanted();
  // Where captures want a point, and the tensors of it that they keep, each where it wants it; while frozen.
  struct Where {
    bool here = false, on_cpu = false;
  };
  Where where(Point point, int layer);
  void keep(Point point, int layer, const Tensor& here, const Tensor& on_cpu);

 private:
  // The one test that is made at every point when no hook is set.
  bool is_active() const noexcept {
#ifdef INFINILM_NO_HOOKS
    return false;
#else
    return count_->load(std::memory_order_relaxed) != 0;
#endif
  }
  // Calls visit(entry, name) for those that hear a point, and are still there; it must not call out.
  template <class Visit>
  void for_each_entry(Point point, int layer, Visit visit) {
    for (const HookPlan::Call& call : calls(point, layer)) {
      if (auto entry = call.entry.lock()) visit(std::move(entry), call.name);
    }
  }
  const HookPlan& current_plan();
  std::span<const HookPlan::Call> calls(Point point, int layer) {
    return current_plan().calls(point, layer);
  }

  std::shared_ptr<HookConnection> connection_;
  Frontend& frontend_;
  StepInfo info_;
  const std::atomic<std::size_t>* count_ = nullptr;  // of the registrations that count
  bool frozen_ = false;
  std::shared_ptr<const HookPlan> plan_;
  std::vector<Kept> kept_;
};

}  // namespace infinilm
