#include "hooks/plan.hpp"

#include <algorithm>
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

// In the order of execution, which is that of point_index.
std::vector<PointNames> names_of(const HookScope& scope) {
  std::vector<PointNames> names;
  names.reserve(point_count(scope.num_layers));
  for_each_point(scope.num_layers, [&](Point point, int layer) {
    names.emplace_back(hook_point_table()[static_cast<std::size_t>(point)], layer, scope.prefix);
  });
  return names;
}

bool matches_any(const std::string& registered, const std::vector<PointNames>& names) {
  const auto matches = [&](const PointNames& n) { return !n.match(registered).empty(); };
  return std::any_of(names.begin(), names.end(), matches);
}

std::string unmatched_text(const std::string& registered, const std::vector<PointNames>& points) {
  std::string text = concat("the hook ", quoted(registered),
                            " matches no hook point of any model its registry is attached to");
  std::vector<std::string> names;
  for (const PointNames& point : points) {
    names.push_back(point.bare);
    for (const auto& [alias, full_alias] : point.aliases) {
      if (!is_glob(registered)) {
        names.push_back(alias);
      } else if (glob_match(registered, alias) || glob_match(registered, full_alias)) {
        return text + concat("; it would match the alias ", quoted(alias),
                             ", but a glob matches only the points' own names (see hook_points())");
      }
    }
  }
  return text + "; the nearest are " + nearest_names(registered, names);
}

}  // namespace

const StepInfo& current_step() {
  check<Error>(running_step != nullptr, "there is a current step only inside of a hook");
  return *running_step;
}

PointNames::PointNames(const HookPointPattern& point, int layer, const std::string& prefix)
    : bare(point_name(point.name, layer)), full(BUILD_HOOK_PREFIX(prefix, bare)) {
  for (const std::string& pattern : point.aliases) {
    const std::string alias = point_name(pattern, layer);
    aliases.emplace_back(alias, BUILD_HOOK_PREFIX(prefix, alias));
  }
}

std::string PointNames::match(const std::string& registered) const {
  if (is_glob(registered)) {
    return glob_match(registered, full) || glob_match(registered, bare) ? full : std::string();
  }
  if (registered == full || registered == bare) return full;
  for (const auto& [alias, full_alias] : aliases) {
    if (registered == full_alias || registered == alias) return full_alias;
  }
  return {};
}

HookPlan::HookPlan(const HookRegistry& registry, const HookScope& scope)
    : generation_(registry.generation()),
      num_layers_(scope.num_layers),
      calls_(point_count(scope.num_layers)) {
  const auto entries = registry.entries();
  const std::vector<PointNames> names = names_of(scope);
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (const auto& entry : entries) {
      std::string name = names[i].match(entry->name);
      if (name.empty()) continue;
      calls_[i].push_back({entry, std::move(name)});
      has_calls_ = true;
    }
  }
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
  std::vector<std::vector<PointNames>> models;
  for (const auto& scope : registry_->scopes()) models.push_back(names_of(*scope));
  for (const auto& entry : registry_->entries()) {
    const auto matches = [&](const auto& names) { return matches_any(entry->name, names); };
    if (std::any_of(models.begin(), models.end(), matches)) continue;
    if (!entry->warned.exchange(true)) {
      frontend.warn(unmatched_text(entry->name, names_of(*scope_)));
    }
  }
}

const HookPlan& HookRunner::current_plan() {
  // To make one may warn, and what hears that may register hooks.
  while (!plan_ || plan_->generation() != connection_->registry()->generation()) {
    plan_ = connection_->plan(frontend_);
  }
  return *plan_;
}

void HookRunner::pause() {
  static const auto nobody = std::make_shared<HookConnection>(nullptr, 0, "");
  paused_ = std::exchange(connection_, nobody);
}

void HookRunner::resume() noexcept { connection_ = std::move(paused_); }

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
