// The ids and sequences of a step in device memory: sent over once for all layers.
//
// One buffer, so that one copy does: ids, sequences, sequence of each row, tiles, and last, since their number changes from step
// to step, the blocks. Nothing is sent while recording. For as many sequences of as many rows everything lies at the same place again, as recordings need.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/context.hpp"
#include "cuda/sequences.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

class StepPlan {
 public:
  // Ids in device memory: those of `begin_step` if they are equal, else sent now.
  const std::int64_t* ids(Context& context, std::span<const std::int64_t> ids);
  // The sequences, cut into tiles of so many tokens.
  const Sequences& sequences(Context& context, std::span<const SequenceRows> sequences,
                             int tile_tokens);
  int tile_count() const noexcept { return tile_count_; }
  // Both at once; `others` go along. If `chosen` is not null, the ids are there, in page-locked memory, when the device comes to it; `ids`
  // only says how many.
  void begin(Context& context, std::span<const std::int64_t> ids,
             std::span<const SequenceRows> sequences, std::span<const Transfer> others,
             const std::int64_t* chosen);

 private:
  void send(Context& context, std::span<const std::int64_t> ids,
            std::span<const SequenceRows> sequences, int tile_tokens,
            std::span<const Transfer> others = {}, const std::int64_t* chosen = nullptr);

  Scratch memory_;
  std::vector<std::byte> sent_, next_;
  std::vector<std::int64_t> ids_;
  int tile_tokens_ = 1;
  int tile_count_ = 0;
  Sequences on_device_;
};

bool has_one_row_each(std::span<const SequenceRows> sequences);

}  // namespace infinilm::cuda
