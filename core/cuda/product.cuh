// The kernel behind product.hpp, for one format.
//
// A block of eight warps takes tiles of 16 outputs, one group of a few after the other; gate and up of act(gate) * up have a tile each
// in it. All warps share a tile, and each has its own columns of it: as many units (32 to 256 columns) as the others, or one less, the same ones in all
// tiles, so that it brings their x into shared memory by itself and waits for no other warp. The sums of all warps are added at the end
// of a group. In a unit, lane (g, t) of a warp, g = lane / 4, multiplies columns 8 t … 8 t + 7 of every 32 of outputs g and g + 8:
//
//             columns  0      8      16     24    31
//   output g          | t = 0 | t = 1 | t = 2 | t = 3 |
//
// which is, with columns numbered in another order for W and x alike, what the tensor cores take.
//
// Weights come through a ring in shared memory (ring.cuh), which each warp keeps for itself: of its slots one is multiplied while
// the others are on their way, those of the next tile while sums are added, and the first of all while the kernel before still
// runs, where a block of that leaves room for this one beside it.
#pragma once

#include <algorithm>

#include "cuda/digits.cuh"
#include "cuda/product.hpp"
#include "cuda/ring.cuh"
#include "cuda/staging.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

// How a block works.
template <class Unit>
struct BlockPlan {
  static constexpr int kWarps = 8, kThreads = kWarps * 32;
  static_assert(Unit::kDepth >= kLeastDepth && Unit::kDepth <= kMostDepth);
  static constexpr int kBlocks = 2;  // that a multiprocessor has registers for

  // Floats, of a tile.
  __host__ __device__ static constexpr int sums(int rows) { return kWarps * rows * kSumStride; }
  static constexpr int ring_bytes(int depth) { return kWarps * depth * Unit::kSlotBytes; }
};

// The tiles of a block, each of a part: every gridDim.x-th, of act(gate) * up both of a number.
struct BlockTiles {
  const Product& p;
  // Of a group, at most.
  __device__ __forceinline__ int together() const {
    return p.act >= 0 ? 2 * p.together : p.together;
  }
  // False behind the last one.
  __device__ __forceinline__ bool find(int i, Place& place) const {
    const int round = p.act >= 0 ? i >> 1 : i;
    const int number = static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) * round;
    if (number >= p.tiles) return false;
    place = p.act >= 0 ? Place{i & 1, number} : place_of(p, number);
    return true;
  }
};

// The units that a warp gets, for its ring, from number `first` of its block's tiles on: of each group, chunk after chunk, those of one
// tile after the other.
template <class Unit>
class WarpUnits {
 public:
  __device__ __forceinline__ WarpUnits(const Product& p, int first, int share)
      : p_(p), first_(first), share_(share) {}
  __device__ __forceinline__ static constexpr int step() { return 1; }
  __device__ __forceinline__ int open(typename Unit::Source& source) {
    const BlockTiles tiles = {p_};
    Place at;
    if (share_ <= 0) return 0;
    if (tile_ == tiles.together() || !tiles.find(group_ + tile_, at)) {
      tile_ = 0;
      begin_ += p_.chunk;
      if (begin_ >= share_) {
        begin_ = 0;
        group_ += tiles.together();
      }
      if (!tiles.find(group_, at)) return 0;
    }
    source.open(p_.parts[at.part].matrix, at.tile, first_ + begin_);
    ++tile_;
    return min(p_.chunk, share_ - begin_);
  }

 private:
  const Product& p_;
  const int first_, share_;
  int group_ = 0, begin_ = 0, tile_ = 0;
};

// The scale of a row's norm, by the squares of all warps.
template <class Plan>
__device__ __forceinline__ float scale_of_row(const Product& p, const float* squares, int r) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < Plan::kWarps; ++w) sum += squares[w * kNormRows + r];
  return scale_of_norm(p, sum);
}

// Of one output of a tile, by all warps.
template <class Plan>
__device__ __forceinline__ float sum_of(const float* sums, int rows, int tile, int r, int n) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < Plan::kWarps; ++w) {
    sum += sums[((tile * Plan::kWarps + w) * rows + r) * kSumStride + n];
  }
  return sum;
}

// Sums of all warps become outputs of a group, of which `first` is the first tile.
template <class Plan, class Sums>
__device__ __forceinline__ void finish_group(const Product& p, int first, const float* sums,
                                             const float* squares) {
  const BlockTiles tiles = {p};
  for (int i = static_cast<int>(threadIdx.x); i < p.together * p.rows * kTileRows;
       i += Plan::kThreads) {
    const int n = i % kTileRows, r = i / kTileRows % p.rows;
    const int tile = i / kTileRows / p.rows * (p.act >= 0 ? 2 : 1);
    Place at;
    if (!tiles.find(first + tile, at)) return;
    const ProductPart& part = p.parts[at.part];
    const int output = at.tile * kTileRows + n;
    if (output >= part.matrix.outputs) continue;
    const bool has_other = p.residual != nullptr && !p.adds;
    const float before = has_other ? p.residual[r * p.residual_stride + output] : 0.0f;
    const bool is_scaled = p.norm == nullptr || !Sums::kTakesAnySize;  // see stage_normed
    const float scale = is_scaled ? 1.0f : scale_of_row<Plan>(p, squares, r);
    float value = sum_of<Plan>(sums, p.rows, tile, r, n) * scale;
    if (part.bias != nullptr) value += part.bias[output];
    if (p.act >= 0) {
      float up = sum_of<Plan>(sums, p.rows, tile + 1, r, n) * scale;
      if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output];
      value = activate(value, p.act) * up;
    }
    float* y = part.y + r * part.y_stride + output;
    if (p.adds) {
      add_to(y, value);
    } else {
      *y = has_other ? before + value : value;
    }
  }
}

// What a hook wants to see of the norm.
template <class Plan>
__device__ __forceinline__ void write_normed(const Product& p, const float* squares) {
  for (int r = 0; r < p.rows; ++r) {
    const float scale = scale_of_row<Plan>(p, squares, r);
    const float* x = p.x + r * p.x_stride;
    float* y = p.normed + r * p.normed_stride;
    for (int i = static_cast<int>(threadIdx.x); i < p.parts[0].matrix.inputs; i += Plan::kThreads) {
      y[i] = x[i] * scale * p.norm[i];
    }
  }
}

// The block's work; kAtOnce: see Ring.
template <bool kAtOnce, class Unit, class Sums>
__device__ __forceinline__ void multiply_tiles(const Product& p, unsigned char* memory) {
  using Plan = BlockPlan<Unit>;
  const int warp = __shfl_sync(kAll, warp_index(), 0);  // the same for the compiler, too
  auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
  const BlockTiles tiles = {p};
  const int set_floats = tiles.together() * Plan::sums(p.rows);
  if (p.are_weights_new) wait_for_previous();
  __shared__ Arrival arrivals[kAtOnce ? Plan::kWarps * kMostDepth : 1];
  __shared__ float squares[Plan::kWarps * kNormRows];
  const int first = p.slots * warp / Plan::kWarps;
  const int share = p.slots * (warp + 1) / Plan::kWarps - first;
  WarpUnits<Unit> units(p, first, share);
  Ring<Unit, WarpUnits<Unit>, kAtOnce> ring(p, units, memory + warp * p.depth * Unit::kSlotBytes,
                                            arrivals + (kAtOnce ? warp * kMostDepth : 0));
  if (p.norm != nullptr && static_cast<int>(threadIdx.x) * 32 < p.parts[0].matrix.inputs) {
    prefetch_line(p.norm + threadIdx.x * 32);
  }

  const int kept = p.chunk * Unit::kColumns;  // columns of a warp
  const StagedX<Sums> x = {reinterpret_cast<typename Sums::X*>(memory + p.x_at) + warp * kept,
                           p.x_shared_stride, p.rows,
                           reinterpret_cast<typename Sums::Note*>(memory + p.notes_at) +
                               Sums::notes(p.rows, warp * kept)};
  const auto bring = [&](int begin) {
    __syncwarp();
    stage<Unit>(p, {(first + begin) * Unit::kColumns, min(p.chunk, share - begin) * Unit::kColumns},
                x, squares + warp * kNormRows);
    __syncwarp();
  };
  wait_for_previous();
  bring(0);
  int staged = 0, set = 0;
  Place place;
  for (int group = 0; tiles.find(group, place); group += tiles.together()) {
    float* of_group = sums + set * set_floats;
    // Once at least: whoever has no columns has zeros.
    for (int begin = 0; begin == 0 || begin < share; begin += p.chunk) {
      if (staged != begin) bring(staged = begin);
      const int count = min(p.chunk, share - begin);
      for (int i = 0; i < tiles.together() && tiles.find(group + i, place); ++i) {
        Sums d;
        d.clear();
        for (int step = 0; step < count; ++step) {
          ring.wait();
          Unit unit;
          unit.load(ring.at());
          d.add(unit, x, step * Unit::kColumns);
          ring.release();
        }
        d.store(of_group + (i * Plan::kWarps + warp) * p.rows * kSumStride, p.rows, begin == 0);
      }
    }
    __syncthreads();
    finish_group<Plan, Sums>(p, group, of_group, squares);
    if (p.normed != nullptr && blockIdx.x == 0 && group == 0) write_normed<Plan>(p, squares);
    set = 1 - set;  // one is added up while the next group's are written
  }
}

template <class Unit, class Sums>
__global__ void __launch_bounds__(BlockPlan<Unit>::kThreads, BlockPlan<Unit>::kBlocks)
    product_kernel(const __grid_constant__ Product p) {
  INFINILM_SHARED_MEMORY(memory);
  let_next_start();
  if (static_cast<int>(blockIdx.x) >= p.tiles) {  // see launch_product
    wait_for_previous();
    return linger();
  }
  if constexpr (Unit::kScaled) {
    if (copies_at_once()) return multiply_tiles<true, Unit, Sums>(p, memory);
  }
  multiply_tiles<false, Unit, Sums>(p, memory);
}

// ---- its launch
inline constexpr int kMostTogether = 8;  // tiles of a group, of gate and up together

// What lies where in shared memory: rings, x, sums. How deep the rings are and how much of x is kept, by the room for it; `units`: that a
// warp has in all. The bytes of all.
template <class Unit, class Sums>
int divide_memory(Product& p, int room, int units) {
  using Plan = BlockPlan<Unit>;
  using X = typename Sums::X;
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const int tiles = p.act >= 0 ? 2 * p.together : p.together;
  const int bytes_of_sums = 2 * tiles * Plan::sums(p.rows) * static_cast<int>(sizeof(float));
  const auto aligned = [](int bytes) { return (bytes + 127) / 128 * 128; };
  const auto columns = [](int chunk) { return Plan::kWarps * chunk * Unit::kColumns; };
  const auto bytes_of_values = [&](int chunk) {
    return aligned(p.rows * (columns(chunk) + kPad) * static_cast<int>(sizeof(X)));
  };
  const auto bytes_of_x = [&](int chunk) {
    const int notes = Sums::notes(p.rows, columns(chunk));
    return bytes_of_values(chunk) + aligned(notes * static_cast<int>(sizeof(typename Sums::Note)));
  };
  const auto bytes = [&](int depth, int chunk) {
    return Plan::ring_bytes(depth) + bytes_of_x(chunk) + bytes_of_sums;
  };
  // Gate and up come after a short product, and are long: their first units are to find room beside that.
  const int most = !Unit::kScaled && p.act >= 0 ? Unit::kDepth / 2 : Unit::kDepth;
  const auto deepest = [&](int chunk) {
    return ring_depth(std::min(most, units), room, [&](int depth) { return bytes(depth, chunk); });
  };
  p.chunk = p.share;
  p.depth = deepest(p.chunk);
  if (bytes(p.depth, p.chunk) > room) {
    // x comes in chunks: the larger they are, the less often warps stop to bring one.
    constexpr int kChunkRings = 64 << 10;
    p.depth = std::min(deepest(1), std::max(kLeastDepth, kChunkRings / Plan::ring_bytes(1)));
    while (p.chunk > 1 && bytes(p.depth, p.chunk) > room) --p.chunk;
  }
  p.x_shared_stride = columns(p.chunk) + kPad;
  p.x_at = Plan::ring_bytes(p.depth);
  p.notes_at = p.x_at + bytes_of_values(p.chunk);
  p.sums_at = p.x_at + bytes_of_x(p.chunk);
  return bytes(p.depth, p.chunk);
}

template <class Unit, class Sums>
void launch_product(Context& context, Product p) {
  using Plan = BlockPlan<Unit>;
  count_tiles(p, kTileRows, Unit::kColumns);
  if (p.tiles == 0) return;
  p.share = std::max(1, (p.slots + Plan::kWarps - 1) / Plan::kWarps);
  int blocks = std::min(p.tiles, context.multiprocessors());
  const int parts = p.act >= 0 ? 2 : 1;
  const int each = (p.tiles + blocks - 1) / blocks;  // tiles of a block, of one part
  p.together = std::min(each, std::max(1, std::min(kMostTogether, 32 / p.rows) / parts));
  p.adds = p.residual != nullptr && p.residual == p.parts[0].y &&
           p.residual_stride == p.parts[0].y_stride;
  const int room = shared_room(context);
  const int bytes = divide_memory<Unit, Sums>(p, room, each * parts * p.share);
  const int inputs = p.parts[0].matrix.inputs;
  check<Error>(bytes <= room, "CUDA: ", p.rows, " rows of ", inputs,
               " columns do not fit into shared memory");
  check<Error>(p.norm == nullptr || (p.chunk == p.share && p.rows <= kNormRows), "CUDA: ", p.rows,
               " rows of ", inputs,
               " columns do not fit into shared memory to be normalised there");
  auto shared = static_cast<std::size_t>(bytes);
  // Two blocks of a kernel on one multiprocessor would take turns while another one has none. In a layer every other product adds to the
  // residual stream. Such a one asks for more than half of shared memory, and the next one's blocks find room beside it, one each, if it
  // has a block everywhere: those that have no tile stay until the others have come.
  if (p.residual != nullptr) {
    shared = std::max(shared, context.shared_for_one());
    blocks = context.multiprocessors();
  }
  context.launch(product_kernel<Unit, Sums>, dim3(static_cast<unsigned>(blocks)), Plan::kThreads,
                 shared, p);
}

template <class Unit>
void launch_float_sums(Context& context, const Product& p) {
  if (p.rows == 1) {
    launch_product<Unit, FloatSums<1>>(context, p);
  } else {
    launch_product<Unit, FloatSums<4>>(context, p);
  }
}

template <class Unit, bool kF16>
void launch_tensor_sums(Context& context, const Product& p) {
  if (p.rows <= 8) {
    launch_product<Unit, TensorSums<1, kF16>>(context, p);
  } else {
    launch_product<Unit, TensorSums<2, kF16>>(context, p);
  }
}

template <class Unit>
void launch_quantised(Context& context, const Product& p) {
  if (p.compute == DataType::F32) return launch_float_sums<Unit>(context, p);
  using Two = TwoUnits<Unit>;
  if (p.rows <= 4 && p.parts[0].matrix.inputs > 7 * Two::kColumns) {  // something for each warp
    launch_product<Two, DigitSums<Two, 1>>(context, p);
  } else if (p.rows <= 4) {
    launch_product<Unit, DigitSums<Unit, 1>>(context, p);
  } else if (p.rows <= 8) {
    launch_product<Unit, DigitSums<Unit, 2>>(context, p);
  } else {
    launch_product<Unit, DigitSums<Unit, 4>>(context, p);
  }
}

// One for each file of instances.
void launch_floats(Context& context, const Product& product);  // float32 arithmetic, F32, F16, BF16
void launch_halves(Context& context, const Product& product);  // 16-bit arithmetic, F16, BF16
void launch_q8(Context& context, const Product& product);      // any, 8 bits
void launch_q4(Context& context, const Product& product);      // any, 4 bits

}  // namespace infinilm::cuda
