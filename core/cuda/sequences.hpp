// The sequences of a step, as kernels see them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace infinilm::cuda {

struct SequenceInfo {
  std::int32_t row_begin;
  std::int32_t rows;
  std::int32_t past;
  std::int32_t first_block;  // in Sequences::blocks
};

// Some tokens of one sequence that one block of threads takes through the cache.
struct QueryTile {
  std::int32_t sequence;
  std::int32_t first;  // token of this step within the sequence
};

// In device memory, all of it.
struct Sequences {
  const SequenceInfo* info = nullptr;
  std::byte* const* blocks = nullptr;
  const std::int32_t* sequence_of_row = nullptr;  // [rows]; -1: of none
  std::int32_t rows = 0;
  const QueryTile* tiles = nullptr;
};

}  // namespace infinilm::cuda
