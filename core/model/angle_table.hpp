// cos and sin of the positions that a model has come to: to compute them for a prompt takes the host longer than to copy them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "ops/ops.hpp"

namespace infinilm {

// cos and sin, times `scale`, of a token's angles position * frequency, in float32 as HF computes them. [frequencies] each.
void put_angles(std::span<const float> frequencies, std::int64_t position, float scale, float* cos,
                float* sin);

// Those of one set of frequencies, kept in blocks of positions; thread-safe. 2 * 4 bytes for each frequency and position up to the
// last that was asked for.
class AngleTable {
 public:
  AngleTable(std::vector<float> frequencies, float scale);

  // Positions first, first + 1, … in host memory: [count, frequencies] each.
  void copy(std::int64_t first, Matrix cos, Matrix sin) const;

 private:
  static constexpr std::int64_t kBlock = 64;  // positions
  using Block = std::vector<float>;           // [kBlock][2][frequencies]

  std::shared_ptr<const Block> block(std::int64_t index) const;
  std::shared_ptr<const Block> compute(std::int64_t index) const;

  const std::vector<float> frequencies_;
  const float scale_;
  mutable std::mutex mutex_;                                  // guards blocks_
  mutable std::vector<std::shared_ptr<const Block>> blocks_;  // null where nobody has been
};

}  // namespace infinilm
