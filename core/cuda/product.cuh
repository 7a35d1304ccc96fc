// The kernel behind product.hpp, for one format.
//
// A block of warps takes tiles of 16 outputs, one after the other. The warps share a row's columns: of kWarps warps, w has units
// (32, 64 or 128 columns) number w, w + kWarps, …, and the sums of all are added at the end. In a unit, lane (g, t) of a warp,
// g = lane / 4, multiplies columns 8 t … 8 t + 7 of every 32 of outputs g and g + 8:
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

#include "cuda/product.hpp"
#include "cuda/ring.cuh"
#include "cuda/staging.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

// How a block works; kTiles 2: tile t of parts 0 and 1 together, for act(gate) * up.
template <class Unit, class Sums, int kTiles>
struct BlockPlan {
  static constexpr int kWarps = kTiles == 2 ? 8 : 16;
  static constexpr int kThreads = kWarps * 32;
  static_assert(Unit::kDepth >= kLeastDepth && Unit::kDepth <= kMostDepth);
  static constexpr int kBlocks = 2;  // that a multiprocessor has registers for
  // With two sets of sums, one is added up while the next tile's are written.
  static constexpr int kSets = 2;

  // Floats of a set.
  __host__ __device__ static constexpr int sums(int rows) {
    return kWarps * kTiles * rows * kSumStride;
  }
  static int ring_bytes(const UnitLayout& layout, int depth) {
    return kWarps * kTiles * depth * Unit::slot_bytes(layout);
  }
};

// Of one output, by all warps.
template <class Plan, int kTiles>
__device__ __forceinline__ float sum_of(const float* sums, int rows, int tile, int r, int n) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < Plan::kWarps; ++w) {
    sum += sums[((w * kTiles + tile) * rows + r) * kSumStride + n];
  }
  return sum;
}

// Sums of all warps become outputs of a tile.
template <class Plan, int kTiles>
__device__ __forceinline__ void finish_tile(const Product& p, int tile, const float* sums) {
  const Place at = kTiles == 1 ? place_of(p, tile) : Place{0, tile};
  const ProductPart& part = p.parts[at.part];
  for (int i = static_cast<int>(threadIdx.x); i < p.rows * kTileRows; i += Plan::kThreads) {
    const int r = i / kTileRows, n = i % kTileRows, output = at.tile * kTileRows + n;
    if (output >= part.matrix.outputs) continue;
    float* y = part.y + r * part.y_stride + output;
    const float before = p.residual != nullptr ? p.residual[r * p.residual_stride + output] : 0.0f;
    float value = sum_of<Plan, kTiles>(sums, p.rows, 0, r, n);
    if (part.bias != nullptr) value += part.bias[output];
    if constexpr (kTiles == 2) {
      float up = sum_of<Plan, kTiles>(sums, p.rows, 1, r, n);
      if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output];
      value = activate(value, p.act) * up;
    }
    *y = p.residual != nullptr ? before + value : value;
  }
}

// The block's work; kAtOnce: see Ring.
template <bool kAtOnce, class Unit, class Sums, int kTiles>
__device__ __forceinline__ void multiply_tiles(const Product& p, unsigned char* memory) {
  using Plan = BlockPlan<Unit, Sums, kTiles>;
  const StagedX<Sums> x = {reinterpret_cast<typename Sums::X*>(memory), p.x_shared_stride, p.rows,
                           reinterpret_cast<typename Sums::Note*>(memory + p.notes_at)};
  auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
  const int warp = __shfl_sync(kAll, warp_index(), 0);  // the same for the compiler, too
  auto* rings = reinterpret_cast<unsigned char*>(sums + Plan::kSets * Plan::sums(p.rows));
  const int ring_bytes = kTiles * p.depth * Unit::slot_bytes(p.parts[0].matrix.unit);
  if (p.are_weights_new) wait_for_previous();
  __shared__ int upcoming[Tiles::kUpcoming];
  __shared__ Arrival arrivals[kAtOnce ? Plan::kWarps * kMostDepth : 1];
  Tiles tiles(p, upcoming);
  using Units = TileUnits<Unit, Plan::kWarps, kTiles>;
  Units units(p, tiles, warp);
  Ring<Unit, Units, kAtOnce> ring(p, units, rings + warp * ring_bytes,
                                  arrivals + (kAtOnce ? warp * kMostDepth : 0));
  if (p.norm != nullptr && static_cast<int>(threadIdx.x) * 32 < p.parts[0].matrix.inputs) {
    prefetch_line(p.norm + threadIdx.x * 32);
  }

  wait_for_previous();
  int staged = -1, set = 0;
  for (int number = 0, tile = tiles[0]; tile < p.tiles; tile = tiles[++number]) {
    tiles.draw();
    if (p.is_next_late && tile + static_cast<int>(gridDim.x) >= p.tiles) let_next_start();
    Sums d[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) d[i].clear();
    for (int begin = 0; begin < p.steps; begin += p.chunk_steps) {
      if (staged != begin) {
        if (staged >= 0) __syncthreads();
        constexpr int kStep = Plan::kWarps * Unit::kColumns;
        stage<Plan::kThreads, Unit>(p, begin * kStep, p.chunk_steps * kStep, x);
        __syncthreads();
        staged = begin;
      }
      const int steps = min(begin + p.chunk_steps, units.units()) - begin;
      for (int step = 0; step < steps; ++step) {
        ring.wait();
        const int column = (step * Plan::kWarps + warp) * Unit::kColumns;
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          Unit unit;
          unit.load(ring.at(i));
          d[i].add(unit, x, column);
        }
        ring.release();
      }
    }
    float* mine = sums + set * Plan::sums(p.rows);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      d[i].store(mine + (warp * kTiles + i) * p.rows * kSumStride, p.rows);
    }
    tiles.publish(number);
    __syncthreads();
    finish_tile<Plan, kTiles>(p, tile, mine);
    set = 1 - set;
  }
}

template <class Unit, class Sums, int kTiles>
__global__ void __launch_bounds__(BlockPlan<Unit, Sums, kTiles>::kThreads,
                                  BlockPlan<Unit, Sums, kTiles>::kBlocks)
    product_kernel(const __grid_constant__ Product p) {
  INFINILM_SHARED_MEMORY(memory);
  if (!p.is_next_late) let_next_start();
  if constexpr (Unit::kScaled) {
    if (copies_at_once()) return multiply_tiles<true, Unit, Sums, kTiles>(p, memory);
  }
  multiply_tiles<false, Unit, Sums, kTiles>(p, memory);
}

// ---- its launch
template <class Unit, class Sums, int kTiles>
void launch_product(Context& context, Product p) {
  using Plan = BlockPlan<Unit, Sums, kTiles>;
  using X = typename Sums::X;
  constexpr int kStep = Plan::kWarps * Unit::kColumns;
  const MatrixView& first = p.parts[0].matrix;
  count_tiles(p, kTileRows, Unit::kColumns);
  const int steps = std::max(1, (p.slots + Plan::kWarps - 1) / Plan::kWarps);
  p.steps = steps;
  static_assert(kStep % (Sums::kStagesMore ? kScaledTogether : kStagedTogether) == 0);
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const auto aligned = [](int bytes) { return (bytes + 127) / 128 * 128; };
  const auto bytes_of_values = [&](int steps) {
    return aligned(p.rows * (steps * kStep + kPad) * static_cast<int>(sizeof(X)));
  };
  const auto bytes_of_x = [&](int steps) {
    const int notes = Sums::notes(p.rows, steps * kStep);
    return bytes_of_values(steps) + aligned(notes * static_cast<int>(sizeof(typename Sums::Note)));
  };
  const int room = shared_room(context);
  const auto bytes_of_rest = [&](int depth) {
    return Plan::kSets * Plan::sums(p.rows) * 4 + Plan::ring_bytes(first.unit, depth);
  };
  p.depth = ring_depth(Unit::kDepth, room, [&](int d) { return bytes_of_rest(d) + bytes_of_x(1); });
  const int rest = bytes_of_rest(p.depth);
  p.chunk_steps = steps;
  while (p.chunk_steps > 1 && rest + bytes_of_x(p.chunk_steps) > room) --p.chunk_steps;
  check<Error>(rest + bytes_of_x(p.chunk_steps) <= room, "CUDA: ", p.rows, " rows of ",
               first.inputs, " columns do not fit into shared memory");
  check<Error>(p.norm == nullptr || p.chunk_steps == steps, "CUDA: a row of ", first.inputs,
               " columns does not fit into shared memory to be normalised there");
  p.x_shared_stride = p.chunk_steps * kStep + kPad;
  p.notes_at = bytes_of_values(p.chunk_steps);
  p.sums_at = bytes_of_x(p.chunk_steps);
  const int blocks = std::min(p.tiles, context.multiprocessors());
  const int least = std::max(1, p.slots / Plan::kWarps);  // units of a tile that a warp has
  p.assigned = (p.depth + least - 1) / least + 1;
  static_assert(kMostDepth + 1 < Tiles::kUpcoming);
  if (p.tiles > blocks * p.assigned) p.tickets = context.tickets();
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
  context.launch(product_kernel<Unit, Sums, kTiles>, dim3(static_cast<unsigned>(blocks)),
                 Plan::kThreads, shared, p);
}

template <class Unit, class Sums>
void launch_tiles(Context& context, const Product& p) {
  if (p.act >= 0) {
    launch_product<Unit, Sums, 2>(context, p);
  } else {
    launch_product<Unit, Sums, 1>(context, p);
  }
}

template <class Unit>
void launch_float_sums(Context& context, const Product& p) {
  if (p.rows == 1) {
    launch_tiles<Unit, FloatSums<1>>(context, p);
  } else {
    launch_tiles<Unit, FloatSums<4>>(context, p);
  }
}

template <class Unit, bool kF16>
void launch_tensor_sums(Context& context, const Product& p) {
  if (p.rows <= 8) {
    launch_tiles<Unit, TensorSums<1, kF16>>(context, p);
  } else {
    launch_tiles<Unit, TensorSums<2, kF16>>(context, p);
  }
}

template <class Unit>
void launch_quantised(Context& context, const Product& p) {
  if (p.compute == DataType::F32) return launch_float_sums<Unit>(context, p);
  if (p.rows <= 8) {
    launch_tiles<Unit, OffsetSums<Unit, 1>>(context, p);
  } else {
    launch_tiles<Unit, OffsetSums<Unit, 2>>(context, p);
  }
}

// One for each file of instances.
void launch_floats(Context& context, const Product& product);  // float32 arithmetic, F32, F16, BF16
void launch_halves(Context& context, const Product& product);  // 16-bit arithmetic, F16, BF16
void launch_q8(Context& context, const Product& product);      // any, 8 bits
void launch_q4(Context& context, const Product& product);      // any, 4 bits

}  // namespace infinilm::cuda
