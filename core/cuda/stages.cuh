// Weights on their way into a block's shared memory for product.cuh, brought by a warp of its own (Hopper and later): in stages, of one tile
// a unit for each warp that multiplies. These lie one after the other in memory, and come as one copy.
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/sums.cuh"

namespace infinilm::cuda {

// Stages that are filled and emptied in turn; behind what is in one lie its two arrivals, so that all is found from one address. Copies are
// slower to where no line of 128 bytes begins.
template <class Unit>
struct Stages {
  static constexpr int kBytes = kMultiplyingWarps * Unit::kSlotBytes;
  static constexpr int kFilledAt = kBytes, kEmptiedAt = kFilledAt + sizeof(Arrival);
  static constexpr int kStride = kBytes + 128;
  static_assert(kBytes % 128 == 0);
  SharedAddress memory;
  int depth;

  __device__ __forceinline__ static Arrival* filled(SharedAddress stage) {
    return reinterpret_cast<Arrival*>(shared_pointer(stage + kFilledAt));
  }
  __device__ __forceinline__ static Arrival* emptied(SharedAddress stage) {
    return reinterpret_cast<Arrival*>(shared_pointer(stage + kEmptiedAt));
  }
  // By one thread. Each warp that multiplies empties a stage by one arrival.
  __device__ __forceinline__ void begin() const {
#pragma unroll 1
    for (int i = 0; i < depth; ++i) {
      begin_arrivals(filled(memory + i * kStride), 1);
      begin_arrivals(emptied(memory + i * kStride), 1, kMultiplyingWarps);
    }
    show_arrivals();
  }
};

// The next stage of somebody who fills or empties one after the other.
template <class Unit>
class NextStage {
 public:
  using All = Stages<Unit>;
  __device__ __forceinline__ explicit NextStage(const All& all)
      : bytes_(static_cast<SharedAddress>(all.depth) * All::kStride),
        end_(all.memory + bytes_),
        nothing_(static_cast<unsigned>(all.depth) >> 16),
        at_(all.memory) {}

  __device__ __forceinline__ void fill(const std::byte* from, int bytes) {
    wait_for_arrival(All::emptied(at_), phase_ ^ 1u);  // in the beginning they are
    if (is_elected()) {
      expect_bytes(All::filled(at_), bytes);
      copy_at_once(shared_pointer(at_), from, bytes, All::filled(at_));
    }
    advance();
  }
  __device__ __forceinline__ void wait() const { wait_for_arrival(All::filled(at_), phase_); }
  __device__ __forceinline__ SharedAddress at() const { return at_; }
  // The whole warp has read it, and `found` comes of all that was read: loads may be under way when they have been asked for, and a copy
  // into the stage would not wait for them. Where to arrive therefore depends on it, as far as the compiler can know.
  __device__ __forceinline__ void release(unsigned found) {
    __syncwarp();
    if (is_elected()) arrive(All::emptied(at_ + (found & nothing_)));
    advance();
  }

 private:
  __device__ __forceinline__ void advance() {
    at_ += All::kStride;
    if (at_ != end_) return;
    at_ -= bytes_;
    phase_ ^= 1u;
  }

  const SharedAddress bytes_, end_;
  const unsigned nothing_;
  SharedAddress at_;
  unsigned phase_ = 0;
};

// A warp's unit of each stage.
template <class Unit>
class OwnUnits {
 public:
  __device__ __forceinline__ OwnUnits(const Stages<Unit>& all, int warp)
      : next_(all), offset_(static_cast<SharedAddress>(warp) * Unit::kSlotBytes) {}
  __device__ __forceinline__ void wait() const { next_.wait(); }
  __device__ __forceinline__ const unsigned char* at() const {
    return shared_pointer(next_.at() + offset_);
  }
  __device__ __forceinline__ void release(unsigned found) { next_.release(found); }

 private:
  NextStage<Unit> next_;
  const SharedAddress offset_;
};

}  // namespace infinilm::cuda
