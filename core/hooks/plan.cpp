#include "hooks/plan.hpp"

#include <utility>

#include "base/nearest.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

thread_local const StepInfo* running_step = nullptr;

// Makes `info` the step of this thread, until the end of the scope (hooks may run another model).
class StepScope {
 public:
  explicit StepScope(const StepInfo& info) : outer_(std::exchange(running_step, &info)) {}
  ~StepScope() { running_step = outer_; }
  StepScope(const StepScope&) = delete;
  StepScope& operator=(const StepScope&) = delete;

 private:
  const StepInfo* outer_;
};

const HookPointPattern& pattern_of(Point point) {
  return hook_point_table()[static_cast<std::size_t>(point)];
}

bool matches_anything(const std::string& name, const HookScope& scope) {
  bool found = false;
  for_each_point(scope.num_layers, [&](Point point, int layer) {
    found = found || !match_point(name, pattern_of(point), layer, scope.prefix).empty();
  });
  return found;
}

// The names of every point, and those of the aliases that `glob` would match if aliases took part in globs.
std::vector<std::string> all_names(const HookScope& scope, bool aliases) {
  std::vector<std::string> names;
  for_each_point(scope.num_layers, [&](Point point, int layer) {
    const HookPointPattern& pattern = pattern_of(point);
    if (!aliases) names.push_back(point_name(pattern.name, layer));
    if (!aliases) return;
    for (const std::string& alias : pattern.aliases) names.push_back(point_name(alias, layer));
  });
  return names;
}

std::string unmatched_text(const std::string& name, const HookScope& scope) {
  std::string text = concat("the hook ", quoted(name),
                            " matches no hook point of any model its registry is attached to");
  if (is_glob(name)) {
    for (const std::string& alias : all_names(scope, true)) {
      if (glob_match(name, alias) || glob_match(name, BUILD_HOOK_PREFIX(scope.prefix, alias))) {
        return text + concat("; it would match the alias ", quoted(alias),
                             ", but a glob matches only the points' own names (see hook_points())");
      }
    }
  }
  std::vector<std::string> names = all_names(scope, false);
  std::vector<std::string> aliases = all_names(scope, true);
  if (!is_glob(name)) names.insert(names.end(), aliases.begin(), aliases.end());
  return text + "; the nearest are " + nearest_names(name, names);
}

}  // namespace

const StepInfo& current_step() {
  check<Error>(running_step != nullptr, "there is a current step only inside of a hook");
  return *running_step;
}

std::string match_point(const std::string& registered, const HookPointPattern& point, int layer,
                        const std::string& prefix) {
  const std::string bare = point_name(point.name, layer);
  const std::string full = BUILD_HOOK_PREFIX(prefix, bare);
  if (is_glob(registered)) {
    return glob_match(registered, full) || glob_match(registered, bare) ? full : std::string();
  }
  if (registered == full || registered == bare) return full;
  for (const std::string& pattern : point.aliases) {
    const std::string alias = point_name(pattern, layer);
    const std::string full_alias = BUILD_HOOK_PREFIX(prefix, alias);
    if (registered == full_alias || registered == alias) return full_alias;
  }
  return {};
}

HookPlan::HookPlan(const HookRegistry& registry, const HookScope& scope)
    : generation_(registry.generation()),
      num_layers_(scope.num_layers),
      calls_(point_count(scope.num_layers)) {
  const auto entries = registry.entries();
  for_each_point(num_layers_, [&](Point point, int layer) {
    auto& calls = calls_[point_index(point, layer, num_layers_)];
    for (const auto& entry : entries) {
      std::string name = match_point(entry->name, pattern_of(point), layer, scope.prefix);
      if (!name.empty()) calls.push_back({entry, std::move(name)});
    }
  });
}

std::span<const HookPlan::Call> HookPlan::calls(Point point, int layer) const noexcept {
  return calls_[point_index(point, layer, num_layers_)];
}

HookConnection::HookConnection(std::shared_ptr<HookRegistry> registry, std::size_t num_layers,
                               const std::string& prefix)
    : registry_(std::move(registry)),
      scope_(std::make_shared<const HookScope>(HookScope{num_layers, prefix})) {
  if (registry_) registry_->attach(scope_);
}

std::shared_ptr<const HookPlan> HookConnection::plan(Frontend& frontend) {
  std::shared_ptr<const HookPlan> plan;
  {
    const std::lock_guard lock(mutex_);
    if (plan_ && plan_->generation() == registry_->generation()) return plan_;
    plan = plan_ = std::make_shared<const HookPlan>(*registry_, *scope_);
  }
  warn_unmatched(frontend);  // without the lock: a warning runs the language's own code
  return plan;
}

void HookConnection::warn_unmatched(Frontend& frontend) const {
  const auto scopes = registry_->scopes();
  for (const auto& entry : registry_->entries()) {
    if (entry->warned.load(std::memory_order_relaxed)) continue;
    bool matched = false;
    for (const auto& scope : scopes) matched = matched || matches_anything(entry->name, *scope);
    if (matched || entry->warned.exchange(true)) continue;
    frontend.warn(unmatched_text(entry->name, *scope_));
  }
}

std::span<const HookPlan::Call> HookRunner::calls(Point point, int layer) {
  if (!plan_ || plan_->generation() != connection_->registry()->generation()) {
    plan_ = connection_->plan(frontend_);
  }
  return plan_->calls(point, layer);
}

void HookRunner::run(Point point, int layer, const Tensor& tensor) {
  std::vector<std::pair<std::shared_ptr<HookEntry>, std::string>> ready;
  for (const HookPlan::Call& call : calls(point, layer)) {
    if (auto entry = call.entry.lock()) ready.emplace_back(std::move(entry), call.name);
  }
  const StepScope scope(info_);
  for (const auto& [entry, name] : ready) {
    entry->calls->fetch_add(1);
    entry->callback(name, tensor, layer);
  }
}

}  // namespace infinilm
