// Weights on their way into a block's shared memory, for product.cuh and product_many.cuh: which groups of tiles a block has, and the rings
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

// Which of a group's tiles a warp has part in: number `tile` of those of gate (part 0) or of up, or of all.
struct PlaceInGroup {
  int part, tile;
  // False behind the last tile.
  __device__ __forceinline__ bool is_there(const Product& p, int group) const {
    return group * p.together + tile < p.tiles;
  }
  __device__ __forceinline__ Place in(const Product& p, int group) const {
    const int number = group * p.together + tile;
    return p.act >= 0 ? Place{part, number} : place_of(p, number);
  }
};

// The groups of tiles of a block, one after the other: some for sure, so that it knows early enough what to ask memory for, then
// whichever is next when it is done with another. Multiprocessors are not equally fast.
class Groups {
 public:
  // `upcoming`: kUpcoming numbers of shared memory.
  static constexpr int kUpcoming = 8;
  __device__ __forceinline__ Groups(const Product& p, int* upcoming)
      : p_(p), upcoming_(upcoming), draws_(p.tickets != nullptr && threadIdx.x == 0) {}

  // The n-th; at least p.groups if there is none. Known p.assigned - 1 ahead of the one that the block is at.
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
    const int group = static_cast<int>(ticket_ + blocks * static_cast<unsigned>(p_.assigned));
    upcoming_[(n + p_.assigned) % kUpcoming] = group;
    draws_ = group < p_.groups;
    // Each block draws once in vain. The last one leaves the counter as it was.
    const unsigned dealt =
        static_cast<unsigned>(p_.groups) - blocks * static_cast<unsigned>(p_.assigned);
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

// The units that a warp gets, for its ring: of its tile of one group after the other those whose number is n, n + p.tile_warps, …, for the
// n-th warp that has part in it.
template <class Unit>
class TileUnits {
 public:
  __device__ __forceinline__ TileUnits(const Product& p, const Groups& groups, PlaceInGroup place,
                                       int n)
      : p_(p),
        groups_(groups),
        place_(place),
        n_(n),
        units_((p.slots - n + p.tile_warps - 1) / p.tile_warps) {}
  // Of a tile.
  __device__ __forceinline__ int units() const { return units_; }
  // From one to the next.
  __device__ __forceinline__ int step() const { return p_.tile_warps; }
  // How many there are of the next tile, where they come from; 0: of none.
  __device__ __forceinline__ int open(typename Unit::Source& source) {
    const int group = groups_[number_];
    if (group >= p_.groups || units_ <= 0 || !place_.is_there(p_, group)) return 0;
    const Place at = place_.in(p_, group);
    source.open(p_.parts[at.part].matrix, at.tile, n_);
    ++number_;
    return units_;
  }

 private:
  const Product& p_;
  const Groups& groups_;
  const PlaceInGroup place_;
  const int n_, units_;
  int number_ = 0;
};

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
      if (lane_index() == 0) begin_arrivals(arrivals, p.depth);
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
      wait_for_oldest(p_.depth);
      __syncwarp();
    }
  }
  __device__ __forceinline__ const unsigned char* at() const {
    return memory_ + slot_ * Unit::kSlotBytes;
  }
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
