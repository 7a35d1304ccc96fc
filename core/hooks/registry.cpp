#include <algorithm>
#include <utility>

#include "hooks/capture_store.hpp"
#include "hooks/current_step.hpp"
#include "infinilm/error.hpp"
#include "infinilm/hooks.hpp"

namespace infinilm {
namespace {

std::atomic<std::int64_t> live_entries{0};

}  // namespace

std::int64_t live_hook_entries() noexcept { return live_entries.load(std::memory_order_relaxed); }

HookEntry::HookEntry(std::string n, HookCallback c)
    : name(std::move(n)),
      callback(std::move(c)),
      calls(std::make_shared<std::atomic<std::int64_t>>(0)) {
  live_entries.fetch_add(1, std::memory_order_relaxed);
}

HookEntry::HookEntry(std::string n, std::shared_ptr<CaptureStore> s)
    : name(std::move(n)), store(std::move(s)), calls(store->calls()) {
  live_entries.fetch_add(1, std::memory_order_relaxed);
}

void HookEntry::fire(const std::string& point, const Tensor& tensor, int layer_idx) const {
  calls->fetch_add(1);
  callback(point, tensor, layer_idx);
}

HookEntry::~HookEntry() { live_entries.fetch_sub(1, std::memory_order_relaxed); }

HookHandle::HookHandle(std::weak_ptr<HookRegistry> registry,
                       const std::shared_ptr<HookEntry>& entry)
    : registry_(std::move(registry)), entry_(entry), name_(entry->name), calls_(entry->calls) {}

void HookHandle::remove() {
  const auto registry = registry_.lock();
  const auto entry = entry_.lock();
  if (registry && entry) registry->remove(entry);
}

bool HookHandle::active() const noexcept {
  const auto registry = registry_.lock();
  const auto entry = entry_.lock();
  return registry && entry && registry->contains(entry);
}

std::shared_ptr<HookHandle> HookRegistry::register_hook(const std::string& name,
                                                        HookCallback callback) {
  check(!name.empty(), "a hook needs a name; HookRegistry cannot match the empty one");
  check(static_cast<bool>(callback), "the hook ", quoted(name), " needs a callback");
  auto entry = std::make_shared<HookEntry>(name, std::move(callback));
  auto handle = std::make_shared<HookHandle>(weak_from_this(), entry);
  std::shared_ptr<HookEntry> old;  // dies after the unlock
  const std::lock_guard lock(mutex_);
  const auto place = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) {
    return e->name == name && !e->is_capture();
  });
  if (place == entries_.end()) {
    entries_.push_back(std::move(entry));
  } else {
    old = std::exchange(*place, std::move(entry));
  }
  changed();
  return handle;
}

std::shared_ptr<Capture> HookRegistry::capture(const std::string& name, bool to_cpu) {
  check(!name.empty(), "a capture needs a name; HookRegistry cannot match the empty one");
  auto entry = std::make_shared<HookEntry>(name, std::make_shared<CaptureStore>(to_cpu));
  auto capture = std::make_shared<Capture>(weak_from_this(), entry);
  const std::lock_guard lock(mutex_);
  entries_.push_back(std::move(entry));
  changed();
  return capture;
}

void HookRegistry::clear() {
  std::vector<std::shared_ptr<HookEntry>> old;  // dies after the unlock
  const std::lock_guard lock(mutex_);
  old.swap(entries_);
  changed();
}

void HookRegistry::call_hook(const std::string& name, const Tensor& tensor, int layer_idx) {
  for (const auto& entry : entries()) {
    if (is_glob(entry->name) ? !glob_match(entry->name, name) : entry->name != name) continue;
    if (!entry->is_capture()) {
      entry->fire(name, tensor, layer_idx);
      continue;
    }
    const StepInfo* step = running_step();
    const Tensor copy = tensor.clone();  // who calls this may go on writing to it
    entry->store->keep({name, layer_idx, entry->store->to_cpu() ? copy.to(Device(), true) : copy,
                        step != nullptr ? *step : StepInfo()});
  }
}

std::vector<std::string> HookRegistry::names() const {
  std::vector<std::string> names;
  for (const auto& entry : entries()) names.push_back(entry->name);
  return names;
}

std::vector<std::shared_ptr<HookEntry>> HookRegistry::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

void HookRegistry::attach(std::weak_ptr<const HookScope> scope) {
  const std::lock_guard lock(mutex_);
  std::erase_if(scopes_, [](const auto& s) { return s.expired(); });
  scopes_.push_back(std::move(scope));
}

std::vector<std::shared_ptr<const HookScope>> HookRegistry::scopes() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const HookScope>> alive;
  for (const auto& scope : scopes_) {
    if (auto s = scope.lock()) alive.push_back(std::move(s));
  }
  return alive;
}

bool HookRegistry::contains(const std::shared_ptr<HookEntry>& entry) const {
  const std::lock_guard lock(mutex_);
  return std::find(entries_.begin(), entries_.end(), entry) != entries_.end();
}

void HookRegistry::remove(const std::shared_ptr<HookEntry>& entry) {
  const std::lock_guard lock(mutex_);
  // The caller's pointer keeps the callback alive until after the unlock.
  if (std::erase(entries_, entry) != 0) changed();
}

void HookRegistry::changed() {
  count_.store(entries_.size(), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
}

}  // namespace infinilm
