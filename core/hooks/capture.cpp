#include "infinilm/capture.hpp"

#include <utility>

#include "hooks/capture_store.hpp"

namespace infinilm {

Capture::Capture(std::weak_ptr<HookRegistry> registry, const std::shared_ptr<HookEntry>& entry)
    : handle_(std::move(registry), entry), store_(entry->store) {}

Capture::~Capture() { remove(); }

std::vector<Captured> Capture::values() const { return store_->values(); }

std::size_t Capture::size() const { return store_->size(); }

std::vector<Captured> Capture::of(const std::string& point) const { return store_->of(point); }

std::vector<Captured> Capture::take() { return store_->take(); }

}  // namespace infinilm
