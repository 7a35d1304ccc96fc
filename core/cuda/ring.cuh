// Weights on their way into a block's shared memory, for product.cuh and product_many.cuh: through rings, one of each warp.
#pragma once

#include <algorithm>
#include <limits>

#include "cuda/product.hpp"
#include "cuda/units.cuh"

namespace infinilm::cuda {

// Numbers the tiles of all parts, of so many outputs each, and the units of a row.
inline void count_tiles(Product& p, int outputs, int columns_of_unit) {
  const int parts = p.act >= 0 ? 1 : p.part_count;  // tile t of gate and of up are one
  p.tiles = 0;
  for (int i = 0; i < kMostParts; ++i) {
    p.first_tiles[i] = i < parts ? p.tiles : std::numeric_limits<int>::max();
    if (i < parts) p.tiles += (p.parts[i].matrix.outputs + outputs - 1) / outputs;
  }
  p.slots = (p.parts[0].matrix.inputs + columns_of_unit - 1) / columns_of_unit;
}

// Part and tile of it that tile number `tile` of a product is.
struct Place {
  int part, tile;
};
__device__ __forceinline__ Place place_of(const Product& p, int tile) {
  Place at = {0, tile};
#pragma unroll
  for (int part = 1; part < kMostParts; ++part) {
    if (tile >= p.first_tiles[part]) at = {part, tile - p.first_tiles[part]};
  }
  return at;
}

inline constexpr int kLeastDepth = 2, kMostDepth = 12;

// Of shared memory, for rings and x: bytes that a block can have beside what kernels have by themselves.
inline int shared_room(const Context& context) {
  constexpr int kStaticShared = 4096;  // at most
  return static_cast<int>(context.shared_limit()) - kStaticShared;
}
// Slots of a ring: `most`, where there is room for so many; bytes(n): what n of them and all else take.
template <class Bytes>
int ring_depth(int most, int room, Bytes bytes) {
  int depth = std::max(most, kLeastDepth);
  while (depth > kLeastDepth && bytes(depth) > room) --depth;
  return depth;
}

// Until the oldest of `depth` groups of copies has arrived.
template <int kDepth = kMostDepth>
__device__ __forceinline__ void wait_for_oldest(int depth) {
  if constexpr (kDepth == kLeastDepth) {
    wait_for_copies<kDepth - 1>();
  } else {
    depth == kDepth ? wait_for_copies<kDepth - 1>() : wait_for_oldest<kDepth - 1>(depth);
  }
}

// A warp's units, slot after slot of a ring of its own. kAtOnce: one lane asks for a unit, and a barrier in shared
// memory hears of it; otherwise all lanes do, and count what they asked for.
template <class Unit, class Units, bool kAtOnce>
class Ring {
 public:
  // `arrivals`: p.depth of them, of this warp, if kAtOnce.
  __device__ __forceinline__ Ring(const Product& p, Units& units, unsigned char* memory,
                                  Arrival* arrivals)
      : p_(p), units_(units), memory_(memory), arrivals_(arrivals) {
    if constexpr (kAtOnce) {
      if (lane_index() == 0) {
        begin_arrivals(arrivals, p.depth);
        show_arrivals();
      }
      __syncwarp();
    }
    for (slot_ = 0; slot_ < p.depth; ++slot_) fetch();
    slot_ = 0;
  }
  // Until the next unit is there: at().
  __device__ __forceinline__ void wait() {
    if constexpr (kAtOnce) {
      wait_for_arrival(arrivals_ + slot_, phase_);
    } else {
      wait_for_oldest<Unit::kDepth>(p_.depth);
      __syncwarp();
    }
  }
  __device__ __forceinline__ const unsigned char* at() const {
    return memory_ + slot_ * Unit::kSlotBytes;
  }
  // It has been read, by instructions that have taken what they loaded: its place is for another one, which a copy may bring before
  // a load that is only under way.
  __device__ __forceinline__ void release(unsigned = 0) {
    __syncwarp();
    fetch();
    if (++slot_ == p_.depth) {
      slot_ = 0;
      phase_ ^= 1u;
    }
  }

 private:
  // Asks for the next one, if there is one.
  __device__ __forceinline__ void fetch() {
    if (left_ == 0) left_ = units_.open(source_);
    if (left_ > 0) {
      unsigned char* to = memory_ + slot_ * Unit::kSlotBytes;
      if constexpr (kAtOnce) {
        if (is_elected()) {
          expect_bytes(arrivals_ + slot_, Unit::kSlotBytes);
          source_.fetch_at_once(to, arrivals_ + slot_);
        }
      } else {
        source_.fetch(to);
      }
      source_.next(units_.step());
      --left_;
    }
    if constexpr (!kAtOnce) commit_copies();
  }

  const Product& p_;
  Units& units_;
  unsigned char* const memory_;
  Arrival* const arrivals_;
  typename Unit::Source source_ = {};
  int left_ = 0, slot_ = 0;
  unsigned phase_ = 0;
};

}  // namespace infinilm::cuda
