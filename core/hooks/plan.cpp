#include "hooks/plan.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/nearest.hpp"
#include "hooks/capture_store.hpp"
#include "hooks/current_step.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// What a frozen runner looks at instead of a registry's count.
const std::atomic<std::size_t> kNone{0}, kSome{1};

// A point whose shape is not that of the step's rows: a recorded step cannot hold it.
bool varies(Point point) {
  return point == Point::AttentionScores || point == Point::AttentionWeights;
}

PointNames names_at(const HookScope& scope, Point point, int layer) {
  return {hook_point_table()[static_cast<std::size_t>(point)], layer, scope.prefix};
}

// In the order of execution, which is that of point_index.
std::vector<PointNames> names_of(const HookScope& scope) {
  std::vector<PointNames> names;
  names.reserve(point_count(scope.num_layers));
  for_each_point(scope.num_layers,
                 [&](Point point, int layer) { names.push_back(names_at(scope, point, layer)); });
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
  for_each_point(scope.num_layers, [&](Point point, int layer) {
    const PointNames names = names_at(scope, point, layer);
    const std::size_t i = point_index(point, layer, num_layers_);
    for (const auto& entry : entries) {
      std::string name = names.match(entry->name);
      if (name.empty()) continue;
      calls_[i].push_back({entry, std::move(name)});
      has_callbacks_ = has_callbacks_ || !entry->is_capture();
      can_wait_ = can_wait_ && entry->is_capture() && !varies(point);
    }
    if (!calls_[i].empty()) wanted_.push_back(i);
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

HookRunner::HookRunner(std::shared_ptr<HookConnection> connection, Frontend& frontend,
                       StepInfo info)
    : connection_(std::move(connection)), frontend_(frontend), info_(std::move(info)) {
  thaw();
}

const HookPlan& HookRunner::current_plan() {
  // To make one may warn, and what hears that may register hooks.
  while (!frozen_ && (!plan_ || plan_->generation() != connection_->registry()->generation())) {
    plan_ = connection_->plan(frontend_);
  }
  return *plan_;
}

bool HookRunner::freeze() {
  const bool active = is_active();
  if (active && !current_plan().can_wait()) return false;
  frozen_ = true;
  count_ = active ? &kSome : &kNone;
  return true;
}

void HookRunner::thaw() noexcept {
  frozen_ = false;
  count_ = connection_->registry() ? &connection_->registry()->count() : &kNone;
}

std::span<const std::size_t> HookRunner::wanted() {
  return is_active() ? current_plan().wanted() : std::span<const std::size_t>();
}

bool HookRunner::wants_callbacks() { return is_active() && current_plan().has_callbacks(); }

void HookRunner::run(Point point, int layer, const Tensor& tensor) {
  std::vector<std::pair<std::shared_ptr<HookEntry>, std::string>> entries;
  for_each_entry(point, layer, [&](std::shared_ptr<HookEntry> entry, const std::string& name) {
    entries.emplace_back(std::move(entry), name);
  });
  // Callbacks may write to the tensor now, and, if they keep it, later.
  const bool is_watched = std::any_of(entries.begin(), entries.end(),
                                      [](const auto& e) { return !e.first->is_capture(); });
  const StepScope scope(info_);
  for (const auto& [entry, name] : entries) {
    if (!entry->is_capture()) {
      entry->fire(name, tensor, layer);
      continue;
    }
    Tensor value = entry->store->to_cpu() ? tensor.to(Device(), true) : tensor;
    if (is_watched && value.buffer() == tensor.buffer()) value = value.clone();
    kept_.push_back({entry->store, {name, layer, std::move(value), info_}});
  }
}

HookRunner::Where HookRunner::where(Point point, int layer) {
  Where wanted;
  for_each_entry(point, layer, [&](const std::shared_ptr<HookEntry>& entry, const std::string&) {
    (entry->store->to_cpu() ? wanted.on_cpu : wanted.here) = true;
  });
  return wanted;
}

void HookRunner::keep(Point point, int layer, const Tensor& here, const Tensor& on_cpu) {
  for_each_entry(point, layer,
                 [&](const std::shared_ptr<HookEntry>& entry, const std::string& name) {
                   const Tensor& value = entry->store->to_cpu() ? on_cpu : here;
                   if (value.buffer()) kept_.push_back({entry->store, {name, layer, value, info_}});
                 });
}

void HookRunner::hand_over(std::vector<Kept> all, std::int64_t step) {
  for (const auto& [store, value] : all) {
    StepInfo info = value.step();
    info.step = step;
    store->keep({value.name(), value.layer_idx(), value.tensor(), std::move(info)});
  }
}

}  // namespace infinilm
