// Weights on their way into a block's shared memory for product.cuh, brought by a warp of its own (Hopper and later): in stages, of one tile
// a unit for each warp that multiplies. These lie one after the other in memory, and come as one copy.
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

// Stages that are filled and emptied in turn.
template <class Unit>
struct Stages {
  static constexpr int kBytes = kMultiplyingWarps * Unit::kSlotBytes;
  unsigned char* memory;
  Arrival* filled;
  Arrival* emptied;
  int depth;

  // By one thread. Each warp that multiplies empties a stage by one arrival.
  __device__ __forceinline__ void begin() const {
    begin_arrivals(filled, depth);
    begin_arrivals(emptied, depth, kMultiplyingWarps);
    show_arrivals();
  }
};

// The next stage of somebody who fills or empties one after the other.
template <class Unit>
class NextStage {
 public:
  __device__ __forceinline__ explicit NextStage(const Stages<Unit>& all)
      : depth_(all.depth), memory_(all.memory), filled_(all.filled), emptied_(all.emptied) {}

  __device__ __forceinline__ void fill(const std::byte* from, int bytes) {
    wait_for_arrival(emptied_, phase_ ^ 1u);  // in the beginning they are
    if (is_elected()) {
      expect_bytes(filled_, bytes);
      copy_at_once(memory_, from, bytes, filled_);
    }
    advance();
  }
  __device__ __forceinline__ void wait() const { wait_for_arrival(filled_, phase_); }
  __device__ __forceinline__ const unsigned char* at() const { return memory_; }
  // The whole warp has read it, and `found` comes of all that was read: loads may be under way when they have been asked for, and a copy
  // into the stage would not wait for them. Where to arrive therefore depends on it, as far as the compiler can know.
  __device__ __forceinline__ void release(unsigned found) {
    __syncwarp();
    const unsigned nothing = static_cast<unsigned>(depth_) >> 16;
    if (is_elected()) arrive(emptied_ + (found & nothing));
    advance();
  }

 private:
  __device__ __forceinline__ void advance() {
    // By steps: where shared memory begins takes long to ask for.
    constexpr int kBytes = Stages<Unit>::kBytes;
    memory_ += kBytes;
    ++filled_;
    ++emptied_;
    if (--left_ > 0) return;
    left_ = depth_;
    memory_ -= depth_ * kBytes;
    filled_ -= depth_;
    emptied_ -= depth_;
    phase_ ^= 1u;
  }

  const int depth_;
  unsigned char* memory_;
  Arrival* filled_;
  Arrival* emptied_;
  int left_ = depth_;
  unsigned phase_ = 0;
};

// A warp's unit of each stage.
template <class Unit>
class OwnUnits {
 public:
  __device__ __forceinline__ OwnUnits(const Stages<Unit>& all, int warp)
      : next_(all), offset_(warp * Unit::kSlotBytes) {}
  __device__ __forceinline__ void wait() const { next_.wait(); }
  __device__ __forceinline__ const unsigned char* at() const { return next_.at() + offset_; }
  __device__ __forceinline__ void release(unsigned found) { next_.release(found); }

 private:
  NextStage<Unit> next_;
  const int offset_;
};

}  // namespace infinilm::cuda
