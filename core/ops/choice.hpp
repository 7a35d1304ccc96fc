// Tokens that a device chooses from rows of logits while the host goes on.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "ops/sampling.hpp"

namespace infinilm {

// For one thread at a time.
class Choice {
 public:
  virtual ~Choice() = default;
  // What was found of each row: waits for it. Stays as long as this. Error if the device has failed.
  virtual std::span<const Chosen> wait() = 0;
};

// One that has been made.
class KnownChoice final : public Choice {
 public:
  explicit KnownChoice(std::vector<Chosen> found) : found_(std::move(found)) {}
  std::span<const Chosen> wait() override { return found_; }

 private:
  const std::vector<Chosen> found_;
};

}  // namespace infinilm
