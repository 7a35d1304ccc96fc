// Rotary position embedding (Su et al. 2021, RoFormer) and its scalings, as HF's modeling_rope_utils.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "infinilm/config.hpp"
#include "model/angle_table.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// [T, D/2] each.
struct RopeTables {
  Matrix cos;
  Matrix sin;
};

class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(const LlamaConfig& config);

  std::int64_t half() const noexcept { return half_; }
  // Fills [T, D] of the device's memory, before the step begins: cos and then sin, [D/2] each, for every row of the sequences, at its
  // position, times the scaling's attention factor. Angles are float32, as HF computes them.
  RopeTables tables(Ops& ops, std::span<const SequenceRows> sequences, Matrix both) const;

 private:
  // In host memory.
  void fill(std::span<const SequenceRows> sequences, const RopeTables& tables) const;
  // The table for a sequence of `length` tokens; null if its frequencies are its own:
  const AngleTable* table_for(std::int64_t length) const;
  std::vector<float> dynamic_frequencies(std::int64_t length) const;

  RopeScaling scaling_;
  std::int64_t half_;
  double theta_;
  std::int64_t original_length_;  // that the model was trained on before scaling
  double attention_factor_ = 1.0;
  std::unique_ptr<const AngleTable> fixed_;  // where they do not depend on the length
  std::unique_ptr<const AngleTable> long_;   // longrope: past the original length
};

}  // namespace infinilm
