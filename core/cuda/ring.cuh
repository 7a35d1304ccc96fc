// Weights on their way into a block's shared memory, for product.cuh and product_many.cuh: which tiles a block has, and the rings
// through which each warp gets its units of them.
#pragma once

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

// The tiles of a block, one after the other: some for sure, so that it knows early enough what to ask memory for, then
// whichever is next when it is done with another. Multiprocessors are not equally fast.
class Tiles {
 public:
  // `upcoming`: kUpcoming numbers of shared memory.
  static constexpr int kUpcoming = 8;
  __device__ __forceinline__ Tiles(const Product& p, int* upcoming)
      : p_(p), upcoming_(upcoming), draws_(p.tickets != nullptr && threadIdx.x == 0) {}

  // The n-th; at least p.tiles if there is none. Known p.assigned - 1 tiles ahead of the one that the block is at.
  __device__ __forceinline__ int operator[](int n) const {
    if (n < p_.assigned || p_.tickets == nullptr) {
      return static_cast<int>(blockIdx.x) + n * static_cast<int>(gridDim.x);
    }
    return upcoming_[n % kUpcoming];
  }
  // At the beginning and, before a barrier, at the end of the n-th.
  __device__ __forceinline__ void draw() {
    if (!draws_) return;
    ticket_ = atomicAdd(p_.tickets, 1u);
  }
  __device__ __forceinline__ void publish(int n) {
    if (!draws_) return;
    const auto blocks = static_cast<unsigned>(gridDim.x);
    const int tile = static_cast<int>(ticket_ + blocks * static_cast<unsigned>(p_.assigned));
    upcoming_[(n + p_.assigned) % kUpcoming] = tile;
    draws_ = tile < p_.tiles;
    // Each block draws once in vain. The last one leaves the counter as it was.
    const unsigned dealt =
        static_cast<unsigned>(p_.tiles) - blocks * static_cast<unsigned>(p_.assigned);
    if (ticket_ == dealt + blocks - 1) *p_.tickets = 0;
  }

 private:
  const Product& p_;
  int* upcoming_;
  bool draws_;
  unsigned ticket_ = 0;
};

inline constexpr int kLeastDepth = 2, kMostDepth = 4;

// Of shared memory, for rings and x: bytes that a block can have beside what kernels have by themselves.
inline int shared_room(const Context& context) {
  constexpr int kStaticShared = 4096;  // at most
  return static_cast<int>(context.shared_limit()) - kStaticShared;
}
// Slots of a ring: `most`, where there is room for so many; bytes(n): what n of them and all else take.
template <class Bytes>
int ring_depth(int most, int room, Bytes bytes) {
  int depth = most;
  while (depth > kLeastDepth && bytes(depth) > room) --depth;
  return depth;
}

// Until the oldest of `depth` groups of copies has arrived.
__device__ __forceinline__ void wait_for_oldest(int depth) {
  static_assert(kLeastDepth == 2 && kMostDepth == 4);
  if (depth == 4) {
    wait_for_copies<3>();
  } else if (depth == 3) {
    wait_for_copies<2>();
  } else {
    wait_for_copies<1>();
  }
}

// The units that warp `warp` of `kWarps` gets, for its ring: of tile after tile those whose number is warp, warp + kWarps, …
template <class Unit, int kWarps, int kTilesAtOnce>
class TileUnits {
 public:
  static constexpr int kStep = kWarps, kTiles = kTilesAtOnce;
  __device__ __forceinline__ TileUnits(const Product& p, const Tiles& tiles, int warp)
      : p_(p), tiles_(tiles), warp_(warp), units_((p.slots - warp + kWarps - 1) / kWarps) {}
  // Of a tile.
  __device__ __forceinline__ int units() const { return units_; }
  // How many there are of the next tile(s), where they come from; 0: of none.
  __device__ __forceinline__ int open(typename Unit::Source (&sources)[kTiles]) {
    const int tile = tiles_[number_];
    if (tile >= p_.tiles || units_ <= 0) return 0;
    const Place at = kTiles == 1 ? place_of(p_, tile) : Place{0, tile};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) sources[i].open(p_.parts[at.part + i].matrix, at.tile, warp_);
    ++number_;
    return units_;
  }

 private:
  const Product& p_;
  const Tiles& tiles_;
  const int warp_, units_;
  int number_ = 0;
};

// A warp's units, slot after slot of a ring of its own. kAtOnce: one lane asks for a unit, and a barrier in shared
// memory hears of it; otherwise all lanes do, and count what they asked for.
template <class Unit, class Units, bool kAtOnce>
class Ring {
  static constexpr int kTiles = Units::kTiles;

 public:
  // `arrivals`: p.depth of them, of this warp, if kAtOnce.
  __device__ __forceinline__ Ring(const Product& p, Units& units, unsigned char* memory,
                                  Arrival* arrivals)
      : p_(p),
        units_(units),
        slot_bytes_(Unit::slot_bytes(p.parts[0].matrix.unit)),
        memory_(memory),
        arrivals_(arrivals) {
    if constexpr (kAtOnce) {
      if (lane_index() == 0) begin_arrivals(arrivals, p.depth);
      __syncwarp();
    }
    for (slot_ = 0; slot_ < p.depth; ++slot_) fetch();
    slot_ = 0;
  }
  // Until the next unit is there: at(i) of tile i.
  __device__ __forceinline__ void wait() {
    if constexpr (kAtOnce) {
      wait_for_arrival(arrivals_ + slot_, phase_);
    } else {
      wait_for_oldest(p_.depth);
      __syncwarp();
    }
  }
  __device__ __forceinline__ const unsigned char* at(int i) const { return place(i); }
  // It has been read, by instructions that have taken what they loaded: its place is for another one, which a copy may bring before
  // a load that is only under way.
  __device__ __forceinline__ void release() {
    __syncwarp();
    fetch();
    if (++slot_ == p_.depth) {
      slot_ = 0;
      phase_ ^= 1u;
    }
  }

 private:
  __device__ __forceinline__ unsigned char* place(int i) const {
    return memory_ + (i * p_.depth + slot_) * slot_bytes_;
  }
  // Asks for the next one, if there is one.
  __device__ __forceinline__ void fetch() {
    if (left_ == 0) left_ = units_.open(sources_);
    if (left_ > 0) {
      if constexpr (kAtOnce) {
        if (lane_index() == 0) {
          expect_bytes(arrivals_ + slot_, kTiles * slot_bytes_);
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
            sources_[i].fetch_at_once(place(i), arrivals_ + slot_);
          }
        }
      } else {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) sources_[i].fetch(place(i));
      }
#pragma unroll
      for (int i = 0; i < kTiles; ++i) sources_[i].next(Units::kStep);
      --left_;
    }
    if constexpr (!kAtOnce) commit_copies();
  }

  const Product& p_;
  Units& units_;
  const int slot_bytes_;
  unsigned char* const memory_;
  Arrival* const arrivals_;
  typename Unit::Source sources_[kTiles] = {};
  int left_ = 0, slot_ = 0;
  unsigned phase_ = 0;
};

}  // namespace infinilm::cuda
