// What the unit that copies tiles into shared memory (the tensor memory accelerator of Hopper) is told of a cache's rows.
//
// All of memory is one tensor of the cache's type, of which a head's 64 rows are found at every 256 bytes:
//   [2^38 bytes each] [256 bytes each] [64 rows] [padded]
// So one description serves every block of every cache with rows of this length, wherever its memory is.
#pragma once

#include <cstdint>

#include "cuda/attention.hpp"

namespace infinilm::cuda {

#if defined(INFINILM_CUDA_EMULATED)
struct TileMap {
  int padded;
};
#else
struct alignas(64) TileMap {
  std::uint64_t words[16];  // a CUtensorMap
};
#endif

inline constexpr int kTileMapStep = 256;     // bytes: what memory and so heads are aligned to
inline constexpr int kTileMapFarShift = 38;  // bits of an address that these steps count
// Where the tensor begins, as no memory does: at 0 would be none.
inline constexpr int kTileMapBase = kTileMapStep;

// For a cache of 16-bit floats. Error where the driver has no such thing.
TileMap map_tiles(const KvView& kv);

}  // namespace infinilm::cuda
