// Where a capture's values lie: written by the passes of any thread, read by whoever holds the capture.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/capture.hpp"

namespace infinilm {

class CaptureStore {
 public:
  explicit CaptureStore(bool to_cpu) : to_cpu_(to_cpu) {}
  // Whether it keeps values on the CPU.
  bool to_cpu() const noexcept { return to_cpu_; }

  // How many values it has been given; shared with the handle, which may outlive it.
  const std::shared_ptr<std::atomic<std::int64_t>>& calls() const noexcept { return calls_; }

  // Its tensor is where it is to be kept, and nobody writes to it any more.
  void keep(Captured value) {
    calls_->fetch_add(1);
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
  }
  std::vector<Captured> values() const {
    const std::lock_guard lock(mutex_);
    return values_;
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return values_.size();
  }
  std::vector<Captured> of(const std::string& point) const {
    std::vector<Captured> found;
    const std::lock_guard lock(mutex_);
    std::copy_if(values_.begin(), values_.end(), std::back_inserter(found),
                 [&](const Captured& value) { return value.name() == point; });
    return found;
  }
  std::vector<Captured> take() {
    std::vector<Captured> taken;
    const std::lock_guard lock(mutex_);
    taken.swap(values_);
    return taken;
  }

 private:
  const bool to_cpu_;
  const std::shared_ptr<std::atomic<std::int64_t>> calls_ =
      std::make_shared<std::atomic<std::int64_t>>(0);
  mutable std::mutex mutex_;
  std::vector<Captured> values_;
};

}  // namespace infinilm
