// The kernel behind product.hpp, for one format.
//
// A block of sixteen warps takes tiles of 16 outputs, one group of one, two or four after the other; act(gate) * up has a tile of gate
// and the same one of up together. A group's tiles are divided among the warps, and those that share a tile share its columns: of n
// warps, number w has units (32, 64 or 128 columns) number w, w + n, …, and the sums of all are added at the end. In a unit, lane (g, t)
// of a warp, g = lane / 4, multiplies columns 8 t … 8 t + 7 of every 32 of outputs g and g + 8:
//
//             columns  0      8      16     24    31
//   output g          | t = 0 | t = 1 | t = 2 | t = 3 |
//
// which is, with columns numbered in another order for W and x alike, what the tensor cores take.
//
// Weights come through a ring in shared memory (ring.cuh), which each warp keeps for itself: of its slots one is multiplied while
// the others are on their way, those of the next tile while sums are added, and the first of all while the kernel before still
// runs. For that a block leaves room for one of the next kernel beside it.
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
  static constexpr int kWarps = 16, kThreads = kWarps * 32;
  static_assert(Unit::kDepth >= kLeastDepth && Unit::kDepth <= kMostDepth);
  static constexpr int kBlocks = 2;  // that a multiprocessor has registers for
  // With two sets of sums, one is added up while the next group's are written.
  static constexpr int kSets = 2;

  // Floats of a set.
  __host__ __device__ static constexpr int sums(int rows) { return kWarps * rows * kSumStride; }
  static constexpr int ring_bytes(int depth) { return kWarps * depth * Unit::kSlotBytes; }
};

// Of one output of tile number `place` of a group, by all warps that share it.
template <int kTileWarps>
__device__ __forceinline__ float sum_of(const float* sums, int rows, int place, int r, int n) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kTileWarps; ++w) {
    sum += sums[((place * kTileWarps + w) * rows + r) * kSumStride + n];
  }
  return sum;
}
__device__ __forceinline__ float sum_of(const Product& p, const float* sums, int place, int r,
                                        int n) {
  if (p.tile_warps == 16) return sum_of<16>(sums, p.rows, place, r, n);
  if (p.tile_warps == 8) return sum_of<8>(sums, p.rows, place, r, n);
  return sum_of<4>(sums, p.rows, place, r, n);
}

// Sums of all warps become outputs of a group.
template <class Plan>
__device__ __forceinline__ void finish_group(const Product& p, int group, const float* sums) {
  for (int i = static_cast<int>(threadIdx.x); i < p.together * p.rows * kTileRows;
       i += Plan::kThreads) {
    const int n = i % kTileRows, tile = i / kTileRows & (p.together - 1);
    const int r = i / kTileRows >> (p.together / 2);  // of 1, 2 and 4: their logarithm
    const PlaceInGroup place = {0, tile};
    const Place at = place.in(p, group);
    const ProductPart& part = p.parts[at.part];
    const int output = at.tile * kTileRows + n;
    if (!place.is_there(p, group) || output >= part.matrix.outputs) continue;
    float* y = part.y + r * part.y_stride + output;
    const float before = p.residual != nullptr ? p.residual[r * p.residual_stride + output] : 0.0f;
    float value = sum_of(p, sums, tile, r, n);
    if (part.bias != nullptr) value += part.bias[output];
    if (p.act >= 0) {
      float up = sum_of(p, sums, p.together + tile, r, n);
      if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output];
      value = activate(value, p.act) * up;
    }
    *y = p.residual != nullptr ? before + value : value;
  }
}

// The block's work; kAtOnce: see Ring.
template <bool kAtOnce, class Unit, class Sums>
__device__ __forceinline__ void multiply_tiles(const Product& p, unsigned char* memory) {
  using Plan = BlockPlan<Unit>;
  const StagedX<Sums> x = {reinterpret_cast<typename Sums::X*>(memory), p.x_shared_stride, p.rows,
                           reinterpret_cast<typename Sums::Note*>(memory + p.notes_at)};
  auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
  const int warp = __shfl_sync(kAll, warp_index(), 0);  // the same for the compiler, too
  auto* rings = reinterpret_cast<unsigned char*>(sums + Plan::kSets * Plan::sums(p.rows));
  const int ring_bytes = p.depth * Unit::kSlotBytes;
  if (p.are_weights_new) wait_for_previous();
  __shared__ int upcoming[Groups::kUpcoming];
  __shared__ Arrival arrivals[kAtOnce ? Plan::kWarps * kMostDepth : 1];
  Groups groups(p, upcoming);
  const int n = warp % p.tile_warps, of_all = warp / p.tile_warps;
  const PlaceInGroup place = {of_all / p.together, of_all % p.together};
  TileUnits<Unit> units(p, groups, place, n);
  Ring<Unit, TileUnits<Unit>, kAtOnce> ring(p, units, rings + warp * ring_bytes,
                                            arrivals + (kAtOnce ? warp * kMostDepth : 0));
  if (p.norm != nullptr && static_cast<int>(threadIdx.x) * 32 < p.parts[0].matrix.inputs) {
    prefetch_line(p.norm + threadIdx.x * 32);
  }

  wait_for_previous();
  const int step_columns = p.tile_warps * Unit::kColumns, first_column = n * Unit::kColumns;
  int staged = -1, set = 0;
  for (int number = 0, group = groups[0]; group < p.groups; group = groups[++number]) {
    groups.draw();
    if (p.is_next_late && group + static_cast<int>(gridDim.x) >= p.groups) let_next_start();
    const bool is_there = place.is_there(p, group);
    Sums d;
    d.clear();
    for (int begin = 0; begin < p.steps; begin += p.chunk_steps) {
      if (staged != begin) {
        if (staged >= 0) __syncthreads();
        stage<Plan::kThreads, Unit>(p, begin * step_columns, p.chunk_steps * step_columns, x);
        __syncthreads();
        staged = begin;
      }
      const int steps = is_there ? min(begin + p.chunk_steps, units.units()) - begin : 0;
      for (int step = 0; step < steps; ++step) {
        ring.wait();
        Unit unit;
        unit.load(ring.at());
        d.add(unit, x, first_column + step * step_columns);
        ring.release();
      }
    }
    float* mine = sums + set * Plan::sums(p.rows);
    d.store(mine + warp * p.rows * kSumStride, p.rows);
    groups.publish(number);
    __syncthreads();
    finish_group<Plan>(p, group, mine);
    set = 1 - set;
  }
}

template <class Unit, class Sums>
__global__ void __launch_bounds__(BlockPlan<Unit>::kThreads, BlockPlan<Unit>::kBlocks)
    product_kernel(const __grid_constant__ Product p) {
  INFINILM_SHARED_MEMORY(memory);
  if (!p.is_next_late) let_next_start();
  if constexpr (Unit::kScaled) {
    if (copies_at_once()) return multiply_tiles<true, Unit, Sums>(p, memory);
  }
  multiply_tiles<false, Unit, Sums>(p, memory);
}

// ---- its launch
inline constexpr int kMostPlaces = 4;  // tiles of a group, of gate and up together

// How many tiles a block takes at a time: those for which the busiest block reads least, of weights and, where it has no room to keep x,
// of x for each group; of equal ones so many that a warp has a few units of a tile between two barriers.
template <class Unit>
void group_tiles(Product& p, int blocks, bool keeps_x) {
  constexpr int kWarps = BlockPlan<Unit>::kWarps, kEnough = 4;
  const int parts = p.act >= 0 ? 2 : 1;
  const MatrixView& w = p.parts[0].matrix;
  const std::int64_t tile_bytes = Unit::kScaled ? w.unit.tile_bytes() : w.row_bytes * kTileRows;
  const std::int64_t x_bytes = keeps_x ? 0 : std::int64_t{2} * p.rows * w.inputs;
  const auto groups = [&](int together) { return (p.tiles + together - 1) / together; };
  const auto bytes = [&](int together) {
    const std::int64_t rounds = (groups(together) + blocks - 1) / blocks;
    return rounds * (together * parts * tile_bytes + x_bytes);
  };
  for (int more = 2; more * parts <= kMostPlaces; more *= 2) {
    const bool has_enough = p.slots * p.together * parts >= kEnough * kWarps;
    const std::int64_t now = bytes(p.together), then = bytes(more);
    if (then < now || (then == now && !has_enough)) p.together = more;
  }
  p.groups = groups(p.together);
  p.tile_warps = kWarps / (p.together * parts);
}

template <class Unit, class Sums>
void launch_product(Context& context, Product p) {
  using Plan = BlockPlan<Unit>;
  using X = typename Sums::X;
  const MatrixView& first = p.parts[0].matrix;
  count_tiles(p, kTileRows, Unit::kColumns);
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const auto aligned = [](int bytes) { return (bytes + 127) / 128 * 128; };
  const auto bytes_of_values = [&](int columns) {
    return aligned(p.rows * (columns + kPad) * static_cast<int>(sizeof(X)));
  };
  const auto bytes_of_x = [&](int columns) {
    const int notes = Sums::notes(p.rows, columns);
    return bytes_of_values(columns) +
           aligned(notes * static_cast<int>(sizeof(typename Sums::Note)));
  };
  const int room = shared_room(context);
  const auto bytes_of_rest = [&](int depth) {
    return Plan::kSets * Plan::sums(p.rows) * 4 + Plan::ring_bytes(depth);
  };
  constexpr int kLeastColumns = Plan::kWarps * Unit::kColumns;  // of x at a time
  static_assert(kLeastColumns / kMostPlaces % (32 * Sums::kOwn) == 0);
  p.depth = ring_depth(Unit::kDepth, room,
                       [&](int d) { return bytes_of_rest(d) + bytes_of_x(kLeastColumns); });
  const int rest = bytes_of_rest(p.depth);
  const int all_columns =
      (p.slots * Unit::kColumns + kLeastColumns - 1) / kLeastColumns * kLeastColumns;
  group_tiles<Unit>(p, context.multiprocessors(), rest + bytes_of_x(all_columns) <= room);
  const int step_columns = p.tile_warps * Unit::kColumns;
  p.steps = std::max(1, (p.slots + p.tile_warps - 1) / p.tile_warps);
  p.chunk_steps = p.steps;
  while (p.chunk_steps > 1 && rest + bytes_of_x(p.chunk_steps * step_columns) > room) {
    --p.chunk_steps;
  }
  check<Error>(rest + bytes_of_x(p.chunk_steps * step_columns) <= room, "CUDA: ", p.rows,
               " rows of ", first.inputs, " columns do not fit into shared memory");
  check<Error>(p.norm == nullptr || p.chunk_steps == p.steps, "CUDA: a row of ", first.inputs,
               " columns does not fit into shared memory to be normalised there");
  p.x_shared_stride = p.chunk_steps * step_columns + kPad;
  p.notes_at = bytes_of_values(p.chunk_steps * step_columns);
  p.sums_at = bytes_of_x(p.chunk_steps * step_columns);
  const int blocks = std::min(p.groups, context.multiprocessors());
  const int least = std::max(1, p.slots / p.tile_warps);  // units of a tile that a warp has
  p.assigned = (p.depth + least - 1) / least + 1;
  static_assert(kMostDepth + 1 < Groups::kUpcoming);
  if (p.groups > blocks * p.assigned) p.tickets = context.tickets();
  // What the next kernel asks memory for while this one has much to ask for only takes turns with that; with its last tiles, it fills
  // the gap at the end. Measured on an H200 with four bits this gives 2 % of a token's time, nearly all before attention; with others,
  // and where sums go into a residual, nothing for certain, and where kernels are launched one by one it takes more than it gives.
  if constexpr (Unit::kScaled) {
    p.is_next_late =
        Unit::kFormat == Layout::Q4 && context.is_recording() && p.act < 0 && p.residual == nullptr;
  }
  auto shared = static_cast<std::size_t>(p.sums_at + rest);
  // Blocks that come while others still run would else gather where room is first. Of two products that follow each other one asks
  // for more than half, and both still fit: in a layer every other one adds to the residual stream.
  if (p.residual != nullptr) shared = std::max(shared, context.shared_for_one());
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
  if (p.rows <= 4) {
    using Two = TwoUnits<Unit>;
    launch_product<Two, DigitSums<Two, 1>>(context, p);
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
