// What a registry means for one model: its globs expanded once, and the runner that fires them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hooks/points.hpp"
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
  // False if no registration matches any point of the model.
  bool has_calls() const noexcept { return has_calls_; }

 private:
  std::uint64_t generation_;
  std::size_t num_layers_;
  std::vector<std::vector<Call>> calls_;  // by point_index
  bool has_calls_ = false;
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

  // The one test that is made at every point when no hook is set.
  bool is_active() const noexcept { return registry_ && registry_->has_hooks(); }
  const std::shared_ptr<HookRegistry>& registry() const noexcept { return registry_; }
  const std::string& prefix() const noexcept { return scope_->prefix; }

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
  HookRunner(std::shared_ptr<HookConnection> connection, Frontend& frontend, StepInfo info)
      : connection_(std::move(connection)), frontend_(frontend), info_(std::move(info)) {}

  // True if somebody wants to see any point.
  bool wants_any() {
#ifdef INFINILM_NO_HOOKS
    return false;
#else
    return connection_->is_active() && current_plan().has_calls();
#endif
  }
  // True if somebody wants to see `point` now.
  bool wants(Point point, int layer) {
#ifdef INFINILM_NO_HOOKS
    (void)point, (void)layer;
    return false;
#else
    if (!connection_->is_active()) [[likely]]
      return false;
    return !calls(point, layer).empty();
#endif
  }
  // Between these two nobody wants to see anything.
  void pause();
  void resume() noexcept;
  // Fires the callbacks of `point`, in the order of their registration.
  void run(Point point, int layer, const Tensor& tensor);

 private:
  const HookPlan& current_plan();
  std::span<const HookPlan::Call> calls(Point point, int layer) {
    return current_plan().calls(point, layer);
  }

  std::shared_ptr<HookConnection> connection_, paused_;
  Frontend& frontend_;
  StepInfo info_;
  std::shared_ptr<const HookPlan> plan_;
};

}  // namespace infinilm
