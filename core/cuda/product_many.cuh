// x W^T for up to 64 rows of x, of which there were more than few (product.hpp), in 16-bit arithmetic on tensor cores: x goes through shared memory in chunks of columns, and is
// multiplied by 128 outputs at a time.
//
//   A block has sixteen warps: two groups, which take turns with the units of a chunk's columns, of eight warps with 16 outputs
//   (a tile) each. Weights come through the same rings as for few rows (ring.cuh), and are rounded to the type of x.
//
// The chunks of all panels of 128 outputs are one long row, and every block has an equal run of it, whatever panels that run begins
// and ends in. A panel that several blocks have a part of is added up by the last of them to be done, in the order of the columns:
// the same bits each time.
#pragma once

#include <algorithm>

#include "cuda/product.hpp"
#include "cuda/ring.cuh"
#include "cuda/sums.cuh"
#include "cuda/wide.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

inline constexpr int kPanelTiles = 8, kChunkColumns = 256;

template <class Unit, int kCount>
struct ManyPlan {
  static constexpr int kGroups = 2, kWarps = kGroups * kPanelTiles, kThreads = kWarps * 32;
  static constexpr int kDepth = Unit::kScaled ? 4 : 3;
  static constexpr int kRows = kCount * 8;
  static constexpr int kUnits = kChunkColumns / Unit::kColumns;  // of a chunk
  static_assert(kUnits % kGroups == 0);
  static constexpr int kStageBytes = kRows * kChunkColumns * 2;  // of a chunk of x; there are two
  static constexpr int kSums = kCount * 4;                       // of a lane
  // What one group gives to the other lies where a chunk was.
  static_assert(kPanelTiles * kSums * 32 * 4 <= kStageBytes);
  static constexpr int ring_bytes(int depth) { return kWarps * depth * Unit::kSlotBytes; }
};

// A block's run of chunks, counted through all panels.
struct Run {
  std::int64_t begin, end;
  __device__ __forceinline__ Run(const Product& p, std::int64_t block) {
    const std::int64_t all = std::int64_t{p.tiles} * p.chunks;
    begin = block * all / gridDim.x;
    end = (block + 1) * all / gridDim.x;
  }
};
__device__ __forceinline__ int block_of_chunk(const Product& p, std::int64_t number) {
  const std::int64_t all = std::int64_t{p.tiles} * p.chunks;
  return static_cast<int>(((number + 1) * gridDim.x - 1) / all);
}

// The units that a warp gets, for its ring: of one panel after the other.
template <class Unit, class Plan>
class PanelUnits {
 public:
  static constexpr int kStep = Plan::kGroups;
  __device__ __forceinline__ int step() const { return kStep; }
  __device__ __forceinline__ PanelUnits(const Product& p, const Run& run, int warp)
      : p_(p), number_(run.begin), end_(run.end), warp_(warp) {}

  __device__ __forceinline__ int open(typename Unit::Source& source) {
    const int group = warp_ / kPanelTiles;
    while (number_ < end_) {
      const auto panel = static_cast<int>(number_ / p_.chunks);
      const auto first = static_cast<int>(number_ % p_.chunks);
      const auto count = static_cast<int>(min(std::int64_t{p_.chunks - first}, end_ - number_));
      number_ += count;
      const int begin = first * Plan::kUnits + group;
      const int end = min((first + count) * Plan::kUnits, p_.slots);
      if (begin >= end) continue;
      const Place at = place_of(p_, panel);
      const MatrixView& matrix = p_.parts[at.part].matrix;
      const int last = (matrix.outputs + kTileRows - 1) / kTileRows - 1;
      // Behind the matrix: any tile will do.
      const int tile = min(at.tile * kPanelTiles + warp_ % kPanelTiles, last);
      source.open(matrix, tile, begin);
      return (end - begin + kStep - 1) / kStep;
    }
    return 0;
  }

 private:
  const Product& p_;
  std::int64_t number_, end_;
  const int warp_;
};

// A chunk of x on its way: from memory into registers while the one before is multiplied, and from there into shared memory.
// Of every 16 rows and 256 columns, a warp has eight and 32.
template <class Plan>
class ChunkOnItsWay {
 public:
  __device__ __forceinline__ explicit ChunkOnItsWay(const Product& p)
      : p_(p),
        row_(warp_index() / kAcross * 8 + lane_index() / 4),
        column_(warp_index() % kAcross * 32 + lane_index() % 4 * 8),
        from_(p.rounded + row_ * p.rounded_stride + column_) {}
  // Number `chunk` of the columns.
  __device__ __forceinline__ void read(int chunk) {
    const int begin = chunk * kChunkColumns;
    const bool inside = begin + column_ < p_.rounded_stride;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const auto* from = from_ + i * kDown * p_.rounded_stride + begin;
      v_[i] = zero4();
      if (inside && row_ + i * kDown < p_.rows) v_[i] = *reinterpret_cast<const uint4*>(from);
    }
  }
  __device__ __forceinline__ void write(std::uint16_t* stage) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      put_in_wide<Plan::kRows>(stage, row_ + i * kDown, column_, v_[i]);
    show_to_tensor_cores();
  }

 private:
  static constexpr int kAcross = kChunkColumns / 32, kDown = Plan::kWarps / kAcross * 8;
  static constexpr int kEach = Plan::kRows / kDown;
  static_assert(Plan::kRows % kDown == 0);
  const Product& p_;
  const int row_, column_;
  const std::uint16_t* const from_;
  uint4 v_[kEach];
};

// 16 outputs x kCount times eight rows, over a warp's lanes as `multiply` has them.
template <int kCount, bool kF16>
struct PanelSums {
  float d[kCount][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < kCount; ++n) d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0.0f;
  }
  // `step`: of x in shared memory, the unit's first 16 columns. `meanwhile()` runs beside the products, when all lanes have what they
  // loaded of the unit: nothing less tells that its place may be written to.
  template <class Unit, class Meanwhile>
  __device__ __forceinline__ void add(const Unit& unit, std::uint16_t* x, int step,
                                      Meanwhile meanwhile) {
    PieceOfW w[Unit::kPieces];
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      w[piece] = {unit.template rounded<kF16>(piece, 0), unit.template rounded<kF16>(piece, 1)};
    }
    begin_wide();
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      multiply_wide<kF16>(d, w[piece].first, x, step + 2 * piece);
      multiply_wide<kF16>(d, w[piece].second, x, step + 2 * piece + 1);
    }
    commit_wide();
    meanwhile();
    end_wide(d);
  }
  // Number i of all, for memory in which each lane's neighbour is the next lane.
  __device__ __forceinline__ float& at(int i) { return d[i / 4][i % 4]; }
};

// What a panel's parts by several blocks are added up from.
template <class Plan>
__device__ __forceinline__ float* partial_of(const Product& p, std::int64_t block,
                                             std::int64_t panel) {
  constexpr std::int64_t kFloats = std::int64_t{kPanelTiles} * Plan::kSums * 32;
  // A block has at most two such parts: where its run begins, and where it ends.
  const int which = Run(p, block).begin / p.chunks == panel ? 0 : 1;
  return p.partial + (block * 2 + which) * kFloats;
}

template <class Unit, int kCount, bool kF16>
class PanelResult {
 public:
  using Plan = ManyPlan<Unit, kCount>;
  using Sums = PanelSums<kCount, kF16>;
  __device__ __forceinline__ PanelResult(const Product& p, int warp) : p_(p), warp_(warp) {}

  // By all threads, for chunks [first, last) of the panel; `memory` is free for it, and again on return.
  __device__ __forceinline__ void finish(Sums& sums, std::int64_t panel, int first, int last,
                                         float* memory) const {
    __shared__ bool is_last;
    const bool mine = warp_ < kPanelTiles;
    if (!mine) put(sums, memory);
    __syncthreads();
    if (mine) add(sums, [&](int i) { return memory[place(i)]; });
    if (first > 0 || last < p_.chunks) {
      const int from = block_of_chunk(p_, panel * p_.chunks);
      const int to = block_of_chunk(p_, panel * p_.chunks + p_.chunks - 1);
      if (mine) put(sums, partial_of<Plan>(p_, blockIdx.x, panel));
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0) {
        unsigned* arrived = p_.arrived + panel;
        is_last = atomicAdd(arrived, 1u) == static_cast<unsigned>(to - from);
        if (is_last) *arrived = 0;  // for the next product
      }
      __syncthreads();
      if (!is_last) return;
      __threadfence();
      if (mine) {
        sums.clear();
        for (int b = from; b <= to; ++b) {
          const float* part = partial_of<Plan>(p_, b, panel);
          add(sums, [&](int i) { return __ldcg(part + place(i)); });
        }
      }
    }
    if (mine) write(sums, static_cast<int>(panel));
    __syncthreads();
  }

 private:
  __device__ __forceinline__ int place(int i) const {
    return (warp_ % kPanelTiles * Plan::kSums + i) * 32 + lane_index();
  }
  __device__ __forceinline__ void put(Sums& sums, float* memory) const {
#pragma unroll
    for (int i = 0; i < Plan::kSums; ++i) memory[place(i)] = sums.at(i);
  }
  template <class Read>
  __device__ __forceinline__ void add(Sums& sums, Read read) const {
#pragma unroll
    for (int i = 0; i < Plan::kSums; ++i) sums.at(i) += read(i);
  }
  __device__ __forceinline__ void write(Sums& sums, int panel) const {
    const Place at = place_of(p_, panel);
    const ProductPart& part = p_.parts[at.part];
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < Plan::kSums; ++i) {
      const int n = i / 4, j = i % 4;
      const int row = n * 8 + 2 * t + j % 2;
      const int output = (at.tile * kPanelTiles + warp_) * kTileRows + g + j / 2 * 8;
      if (row >= p_.rows || output >= part.matrix.outputs) continue;
      float value = sums.at(i);
      if (part.bias != nullptr) value += part.bias[output];
      float* y = part.y + row * part.y_stride + output;
      if (p_.residual != nullptr) value += p_.residual[row * p_.residual_stride + output];
      *y = value;
    }
  }

  const Product& p_;
  const int warp_;
};

// The block's work; kAtOnce: see Ring.
template <bool kAtOnce, class Unit, int kCount, bool kF16>
__device__ __forceinline__ void multiply_panels(const Product& p, unsigned char* memory) {
  using Plan = ManyPlan<Unit, kCount>;
  const int warp = uniform(warp_index());
  const auto stage = [&](std::int64_t number) {
    return reinterpret_cast<std::uint16_t*>(memory + number % 2 * Plan::kStageBytes);
  };
  const Run run(p, blockIdx.x);
  if (p.are_weights_new) wait_for_previous();
  __shared__ Arrival arrivals[kAtOnce ? Plan::kWarps * kMostDepth : 1];
  const int ring_bytes = p.depth * Unit::kSlotBytes;
  PanelUnits<Unit, Plan> units(p, run, warp);
  Ring<Unit, PanelUnits<Unit, Plan>, kAtOnce> ring(
      p, units, memory + 2 * Plan::kStageBytes + warp * ring_bytes,
      arrivals + (kAtOnce ? warp * kMostDepth : 0));
  wait_for_previous();
  ChunkOnItsWay<Plan> chunk(p);
  chunk.read(static_cast<int>(run.begin % p.chunks));
  chunk.write(stage(run.begin));
  __syncthreads();
  const int group = warp / kPanelTiles;
  for (std::int64_t number = run.begin; number < run.end;) {
    const std::int64_t panel = number / p.chunks;
    const auto first = static_cast<int>(number % p.chunks);
    const auto last = static_cast<int>(min(std::int64_t{p.chunks}, first + run.end - number));
    PanelSums<kCount, kF16> sums;
    sums.clear();
    for (int c = first; c < last; ++c, ++number) {
      const bool more = number + 1 < run.end;
      if (more) chunk.read(c + 1 < p.chunks ? c + 1 : 0);
      for (int u = group; u < Plan::kUnits && c * Plan::kUnits + u < p.slots; u += Plan::kGroups) {
        ring.wait();
        Unit unit;
        unit.load(ring.at());
        sums.add(unit, stage(number), u * Unit::kColumns / 16, [&] { ring.release(); });
      }
      if (more) chunk.write(stage(number + 1));
      __syncthreads();
    }
    PanelResult<Unit, kCount, kF16>(p, warp).finish(sums, panel, first, last,
                                                    reinterpret_cast<float*>(stage(number - 1)));
  }
}

template <class Unit, int kCount, bool kF16>
__global__ void __launch_bounds__(ManyPlan<Unit, kCount>::kThreads, 1)
    panel_kernel(const __grid_constant__ Product p) {
  INFINILM_SHARED_MEMORY(memory);
  let_next_start();
  if constexpr (Unit::kScaled) {
    if (copies_at_once()) return multiply_panels<true, Unit, kCount, kF16>(p, memory);
  }
  multiply_panels<false, Unit, kCount, kF16>(p, memory);
}

// ---- its launch
template <class Unit, int kCount, bool kF16>
void launch_panels(Context& context, Product p, SplitMemory& splits) {
  using Plan = ManyPlan<Unit, kCount>;
  const MatrixView& first = p.parts[0].matrix;
  constexpr int kOutputs = kPanelTiles * kTileRows;
  count_tiles(p, kOutputs, Unit::kColumns);
  p.chunks = std::max(1, (first.inputs + kChunkColumns - 1) / kChunkColumns);
  const int room = shared_room(context);
  const auto bytes = [](int depth) { return 2 * Plan::kStageBytes + Plan::ring_bytes(depth); };
  p.depth = ring_depth(Plan::kDepth, room, bytes);
  check<Error>(bytes(p.depth) <= room, "CUDA: ", p.rows, " rows do not fit into shared memory");
  const int blocks = std::min(p.tiles * p.chunks, context.multiprocessors());
  const auto parts = static_cast<std::size_t>(2 * blocks);
  p.partial = reinterpret_cast<float*>(
      context.scratch(splits.partial, parts * kOutputs * Plan::kRows * sizeof(float)));
  p.arrived = reinterpret_cast<unsigned*>(context.cleared_scratch(
      splits.arrived, static_cast<std::size_t>(p.tiles) * sizeof(unsigned)));
  context.launch(panel_kernel<Unit, kCount, kF16>, dim3(static_cast<unsigned>(blocks)),
                 Plan::kThreads, static_cast<std::size_t>(bytes(p.depth)), p);
}

template <class Unit, bool kF16>
void launch_counts(Context& context, const Product& p, SplitMemory& splits) {
  if (p.rows <= 32) {
    launch_panels<Unit, 4, kF16>(context, p, splits);
  } else {
    launch_panels<Unit, 8, kF16>(context, p, splits);
  }
}

template <class Unit>
void launch_many_quantised(Context& context, const Product& p, SplitMemory& splits) {
  if (p.compute == DataType::F16) {
    launch_counts<Unit, true>(context, p, splits);
  } else {
    launch_counts<Unit, false>(context, p, splits);
  }
}

// One for each file of instances.
void launch_many_halves(Context& context, const Product& product, SplitMemory& splits);
void launch_many_q8(Context& context, const Product& product, SplitMemory& splits);
void launch_many_q4(Context& context, const Product& product, SplitMemory& splits);

}  // namespace infinilm::cuda
