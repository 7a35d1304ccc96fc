// The kernel behind product.hpp, for one format.
//
// A block takes tiles of 16 outputs, in rounds: one in each, or of gate and up of act(gate) * up one each. Eight warps multiply a tile
// together, each every eighth unit of its columns (32 to 256 of them), the same ones in all tiles, so that it brings their x into
// shared memory by itself and waits for no other warp. The sums of all warps are added at the end of a group of rounds. In a unit, lane
// (g, t) of a warp, g = lane / 4, multiplies columns 8 t … 8 t + 7 of every 32 of outputs g and g + 8:
//
//             columns  0      8      16     24    31
//   output g          | t = 0 | t = 1 | t = 2 | t = 3 |
//
// which is, with columns numbered in another order for W and x alike, what the tensor cores take.
//
// Weights come through shared memory: by a ring of each warp (ring.cuh), or, codes on Hopper, in stages of all warps, which a ninth brings
// (stages.cuh). Some are multiplied while others are on their way, those of the next tile while sums are added, and the first of all
// while the kernel before still runs, where a block of that leaves room for this one beside it.
#pragma once

#include <algorithm>

#include "cuda/digits.cuh"
#include "cuda/product.hpp"
#include "cuda/ring.cuh"
#include "cuda/stages.cuh"
#include "cuda/staging.cuh"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

inline constexpr int kMultiplyingThreads = kMultiplyingWarps * 32;
// Places where threads meet.
inline constexpr int kStagesBegin = 1, kGroupEnds = 2;
__device__ __forceinline__ void meet_multiplying() { meet(kGroupEnds, kMultiplyingThreads); }

// How a block works.
template <class Unit>
struct BlockPlan {
  static constexpr int kThreads =
      kMultiplyingThreads + (Unit::kScaled ? 32 : 0);  // with who brings stages
  static_assert(Unit::kDepth >= kLeastDepth && Unit::kDepth <= kMostDepth);
  static constexpr int kBlocks = 2;  // that a multiprocessor has registers for

  // Of a ring for each warp, or of stages for all.
  static constexpr int ring_bytes(int depth) {
    return depth * (Unit::kScaled ? Stages<Unit>::kStride : kMultiplyingWarps * Unit::kSlotBytes);
  }
};

// The rounds of a block, in each of which it takes a tile, of every gridDim.x-th number, or of act(gate) * up two of a number.
class Rounds {
 public:
  __device__ __forceinline__ explicit Rounds(const Product& p)
      : p_(p), count_(number(p.rounds - 1) < p.tiles ? p.rounds : p.rounds - 1) {}
  __device__ __forceinline__ int count() const { return count_; }
  // Of the group that begins with round `first`.
  __device__ __forceinline__ int of_group(int first) const {
    return min(p_.together, count_ - first);
  }
  __device__ __forceinline__ Place place(int round, int part) const {
    return p_.act >= 0 ? Place{part, number(round)} : place_of(p_, number(round));
  }
  __device__ __forceinline__ int parts() const { return p_.act >= 0 ? 2 : 1; }

 private:
  __device__ __forceinline__ int number(int round) const {
    return static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) * round;
  }
  const Product& p_;
  const int count_;
};

// How many of `slots` units a warp has, of the first and every eighth after it.
__device__ __forceinline__ int units_of_warp(int slots, int warp) {
  return (slots - warp + kMultiplyingWarps - 1) / kMultiplyingWarps;
}

// The units that a warp gets, for its ring: of each group, chunk after chunk, those of one tile after the other.
template <class Unit>
class WarpUnits {
 public:
  __device__ __forceinline__ WarpUnits(const Product& p, int warp)
      : p_(p), warp_(warp), count_(units_of_warp(p.slots, warp)) {}
  __device__ __forceinline__ static constexpr int step() { return kMultiplyingWarps; }
  __device__ __forceinline__ int open(typename Unit::Source& source) {
    const Rounds rounds(p_);
    if (count_ <= 0) return 0;
    if (part_ == rounds.parts()) {
      part_ = 0;
      ++round_;
    }
    if (round_ == rounds.of_group(group_)) {
      round_ = 0;
      begin_ += p_.chunk;
      if (begin_ >= count_) {
        begin_ = 0;
        group_ += p_.together;
      }
    }
    if (group_ >= rounds.count()) return 0;
    const Place at = rounds.place(group_ + round_, part_);
    source.open(p_.parts[at.part].matrix, at.tile, begin_ * kMultiplyingWarps + warp_);
    ++part_;
    return min(p_.chunk, count_ - begin_);
  }

 private:
  const Product& p_;
  const int warp_, count_;
  int group_ = 0, begin_ = 0, round_ = 0, part_ = 0;
};

// What comes into a block's stages, one after the other.
template <class Unit>
class StageOrder {
 public:
  __device__ __forceinline__ explicit StageOrder(const Product& p) : p_(p) {}
  // False behind the last one.
  __device__ __forceinline__ bool next(const std::byte*& from, int& bytes) {
    if (unit_ >= end_ && !open()) return false;
    from = tile_ + std::int64_t{unit_} * Unit::kSlotBytes;
    bytes = min(kMultiplyingWarps, end_ - unit_) * Unit::kSlotBytes;
    unit_ += kMultiplyingWarps;
    return true;
  }

 private:
  // The next tile of a group, for one chunk of x after the other.
  __device__ __forceinline__ bool open() {
    const Rounds rounds(p_);
    if (++part_ == rounds.parts()) part_ = 0, ++round_;
    if (round_ == rounds.of_group(group_)) round_ = 0, begin_ += p_.chunk;
    if (begin_ >= p_.share) begin_ = 0, group_ += p_.together;
    if (group_ >= rounds.count()) return false;
    const Place at = rounds.place(group_ + round_, part_);
    const MatrixView& m = p_.parts[at.part].matrix;
    tile_ = m.data + at.tile * m.unit.tile_bytes();
    unit_ = begin_ * kMultiplyingWarps;
    end_ = min(p_.slots, (begin_ + p_.chunk) * kMultiplyingWarps);
    return true;
  }

  const Product& p_;
  const std::byte* tile_ = nullptr;
  int group_ = 0, begin_ = 0, round_ = 0, part_ = -1;
  int unit_ = 0, end_ = 0;
};

// By a warp that does nothing else.
template <class Unit>
__device__ __forceinline__ void bring_stages(const Product& p, const Stages<Unit>& stages) {
  // While nothing is multiplied yet: not faster than memory answers. What the kernel before still reads would wait behind it.
  constexpr unsigned kPause = 400;
  NextStage<Unit> next(stages);
  // First what there is room for and what is to come after it; then, from behind the former on, all of it.
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    const bool is_first = pass == 0;
    StageOrder<Unit> order(p);
    const std::byte* from = nullptr;
    int bytes = 0;
    for (int number = 0; order.next(from, bytes); ++number) {
      if ((number < p.depth) == is_first) {
        next.fill(from, bytes);
      } else if (is_first && is_elected()) {
        prefetch_at_once(from, bytes);
      }
      if (!is_first) continue;
      if (number + 1 == p.depth + p.ahead) break;
      pause(kPause);
    }
  }
}

// The scale of a row's norm, by the squares of all warps.
__device__ __forceinline__ float scale_of_row(const Product& p, const float* squares, int r) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kMultiplyingWarps; ++w) sum += squares[w * kNormRows + r];
  return scale_of_norm(p, sum);
}

// Of one output, by all warps; `first`: the first one's.
__device__ __forceinline__ float sum_of(const float* first, int floats) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kMultiplyingWarps; ++w) sum += first[w * floats];
  return sum;
}

// A result of a group of tiles, and where it goes.
class Result {
 public:
  // Number i of the group that begins with round `first`.
  template <class Sums>
  __device__ __forceinline__ static Result find(const Product& p, const Rounds& rounds, int first,
                                                int i) {
    const int rows = rows_of<Sums>(p);
    Result result;
    const int row = static_cast<int>(static_cast<unsigned>(i) / kTileRows);
    const int round = rows == 1 ? row : row / rows;  // to divide takes time
    if (round >= rounds.of_group(first)) return result;
    const int n = i & (kTileRows - 1);
    result.r_ = rows == 1 ? 0 : row % rows;
    result.at_ =
        round * rounds.parts() * kMultiplyingWarps * Sums::floats(rows) + Sums::place(result.r_, n);
    const Place at = rounds.place(first + round, 0);
    const ProductPart& part = p.parts[at.part];
    const int output = at.tile * kTileRows + n;
    if (output >= part.matrix.outputs) return result;
    result.output_ = output;
    result.y_ = part.y + result.r_ * part.y_stride + output;
    result.bias_ = part.bias;
    return result;
  }
  template <class Sums>
  __device__ __forceinline__ float value(const Product& p, const float* sums,
                                         const float* squares) const {
    const int floats = Sums::floats(rows_of<Sums>(p));
    const bool is_scaled = p.norm == nullptr || !Sums::kTakesAnySize;  // see stage_normed
    const float scale = is_scaled ? 1.0f : scale_of_row(p, squares, r_);
    float value = sum_of(sums + at_, floats) * scale;
    if (bias_ != nullptr) value += bias_[output_];
    if (p.act >= 0) {
      float up = sum_of(sums + at_ + kMultiplyingWarps * floats, floats) * scale;
      if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output_];
      value = activate(value, p.act) * up;
    }
    return value;
  }
  template <class Sums>
  __device__ __forceinline__ void write(const Product& p, const float* sums,
                                        const float* squares) const {
    if (y_ == nullptr) return;
    const bool has_other = p.residual != nullptr && !p.adds;
    const float before = has_other ? p.residual[r_ * p.residual_stride + output_] : 0.0f;
    const float found = value<Sums>(p, sums, squares);
    if (p.adds) {
      add_to(y_, found);
    } else {
      *y_ = has_other ? before + found : found;
    }
  }
  // With its digits; by all lanes of a warp at once, also those that have no result.
  template <class Unit, class Sums>
  __device__ __forceinline__ void write_digits(const Product& p, const float* sums,
                                               const float* squares) const {
    const bool is_there = y_ != nullptr;
    const float found = is_there ? value<Sums>(p, sums, squares) : 0.0f;
    const auto column = static_cast<unsigned>(output_);
    const float rounded = leave_digits<Unit>(p.digits_of_y, column, found, is_there);
    if (is_there) *y_ = rounded;
  }

 private:
  int at_ = 0;  // of its first sum
  int r_ = 0, output_ = 0;
  float* y_ = nullptr;  // of no result
  const float* bias_ = nullptr;
};

template <class Unit, class Sums>
__device__ __forceinline__ void write_result(const Product& p, const Result& result,
                                             const float* sums, const float* squares) {
  if constexpr (Sums::kHasDigitRuns) {
    if (p.digits_of_y.x != nullptr) return result.write_digits<Unit, Sums>(p, sums, squares);
  }
  result.write<Sums>(p, sums, squares);
}

// What a hook wants to see of the norm.
__device__ __forceinline__ void write_normed(const Product& p, const float* squares) {
  for (int r = 0; r < p.rows; ++r) {
    const float scale = scale_of_row(p, squares, r);
    const float* x = p.x + r * p.x_stride;
    float* y = p.normed + r * p.normed_stride;
    for (int i = static_cast<int>(threadIdx.x); i < p.parts[0].matrix.inputs;
         i += kMultiplyingThreads) {
      y[i] = x[i] * scale * p.norm[i];
    }
  }
}

// What a warp does that multiplies. `weights`: its units one after the other, each there after wait(), at(), and read at release(), which
// is told what comes of all that was read. kInStages: there is one more of a tile where other warps have one more than it.
template <bool kInStages, class Unit, class Sums, class Weights>
__device__ __forceinline__ void multiply_tiles(const Product& p, int warp, unsigned char* memory,
                                               Weights& weights) {
  constexpr int kAcross = kMultiplyingWarps * Unit::kColumns;
  __shared__ float squares[kMultiplyingWarps * kNormRows];
  if (p.norm != nullptr && static_cast<int>(threadIdx.x) * 32 < p.parts[0].matrix.inputs) {
    prefetch_line(p.norm + threadIdx.x * 32);
  }
  const int rows = rows_of<Sums>(p);
  const StagedX<Sums> x = {reinterpret_cast<typename Sums::X*>(memory + p.x_at), p.x_shared_stride,
                           rows, reinterpret_cast<typename Sums::Note*>(memory + p.notes_at)};
  const int units = units_of_warp(p.slots, warp);
  const int of_tile = kMultiplyingWarps * Sums::floats(rows);
  auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
  const Rounds rounds(p);
  const int own_result = static_cast<int>(threadIdx.x);
  Result mine = Result::find<Sums>(p, rounds, 0, own_result);  // takes time, which there is now
  wait_for_previous();
  int staged = -1, set = 0;
  for (int group = 0; group < rounds.count(); group += p.together) {
    const int tiles = rounds.of_group(group) * rounds.parts();
    float* of_group = sums + set * p.together * rounds.parts() * of_tile;
    for (int begin = 0; begin < p.share; begin += p.chunk) {
      const int count = min(p.chunk, units - begin);
      if (staged != begin) {
        staged = begin;
        __syncwarp();
        stage(p, OwnColumns<Unit>{begin * kAcross, warp, count * Unit::kColumns}, x,
              squares + warp * kNormRows);
        __syncwarp();
      }
      const bool has_fewer = kInStages && count < min(p.chunk, units_of_warp(p.slots, 0) - begin);
      float* own = of_group + warp * Sums::floats(rows);
      Sums d;
      for (int tile = 0; tile < tiles; ++tile, own += of_tile) {
        d.clear();
        StagedX<Sums> of_unit = x.from(warp * Unit::kColumns);
        for (int step = 0; step < count; ++step, of_unit = of_unit.from(kAcross)) {
          d.take(of_unit);
          weights.wait();
          Unit unit;
          unit.load(weights.at());
          d.add(unit, of_unit);
          weights.release(d.bits());
        }
        if (has_fewer) {
          weights.wait();
          weights.release(0);
        }
        d.store(own, rows, begin == 0);
      }
    }
    if (group > 0) mine = Result::find<Sums>(p, rounds, group, own_result);
    meet_multiplying();
    write_result<Unit, Sums>(p, mine, of_group, squares);
    if constexpr (Sums::kRows > 1) {
      const int results = rounds.of_group(group) * rows * kTileRows;
      for (int i = own_result + kMultiplyingThreads; i < results; i += kMultiplyingThreads) {
        Result::find<Sums>(p, rounds, group, i).template write<Sums>(p, of_group, squares);
      }
    }
    if (p.normed != nullptr && blockIdx.x == 0 && group == 0) write_normed(p, squares);
    set = 1 - set;  // one is added up while the next group's are written
  }
}

template <class Unit, class Sums>
__device__ __forceinline__ void multiply_from_rings(const Product& p, unsigned char* memory) {
  const int warp = uniform(warp_index());
  if (p.are_weights_new) wait_for_previous();
  WarpUnits<Unit> units(p, warp);
  Ring<Unit, WarpUnits<Unit>, false> ring(p, units, memory + warp * p.depth * Unit::kSlotBytes,
                                          nullptr);
  multiply_tiles<false, Unit, Sums>(p, warp, memory, ring);
}

template <class Unit, class Sums>
__device__ __forceinline__ void multiply_from_stages(const Product& p, unsigned char* memory) {
  using Plan = BlockPlan<Unit>;
  const Stages<Unit> stages = {shared_address(memory), p.depth};
  const int warp = uniform(warp_index());
  if (warp == kMultiplyingWarps) {
    if (is_elected()) stages.begin();
    __syncwarp();
    pass_by(kStagesBegin, Plan::kThreads);
    return bring_stages<Unit>(p, stages);
  }
  meet(kStagesBegin, Plan::kThreads);
  OwnUnits<Unit> own(stages, warp);
  multiply_tiles<true, Unit, Sums>(p, warp, memory, own);
}

template <class Unit, class Sums>
__global__ void __launch_bounds__(BlockPlan<Unit>::kThreads, BlockPlan<Unit>::kBlocks)
    product_kernel(const __grid_constant__ Product p) {
  INFINILM_SHARED_MEMORY(all);
  unsigned char* memory = all;
  // Several rows are copied in loops (copy_rounded): there the compiler has to know that what it writes is not what it reads next, or each
  // load waits for the one before.
  if constexpr (Sums::kRows == 1) memory = shared_pointer(kept(shared_address(all)));
  let_next_start();
  if (static_cast<int>(blockIdx.x) >= p.tiles) {  // see launch_product
    wait_for_previous();
    return pause(600);
  }
  if constexpr (Unit::kScaled) {
    if (copies_at_once()) return multiply_from_stages<Unit, Sums>(p, memory);
    if (warp_index() == kMultiplyingWarps) return;
  }
  multiply_from_rings<Unit, Sums>(p, memory);
}

// ---- its launch
// Tiles of a group, of gate and up together.
inline constexpr int kMostTogether = 8, kMostTogetherOfRow = 16;
static_assert(kMostTogetherOfRow * kTileRows <= kMultiplyingThreads);  // a thread has one result

// Of shared memory, in bytes: all that a block can have, and what it can have so that blocks of the products before and after find room
// beside it.
struct Room {
  int all, beside;
};

// What lies where in shared memory: rings, x, sums. How deep the rings are and how much of x is kept, by the room for it; `units`: that a
// warp has in all. The bytes of all.
template <class Unit, class Sums>
int divide_memory(Product& p, Room room, int units) {
  using Plan = BlockPlan<Unit>;
  using X = typename Sums::X;
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const int tiles = p.act >= 0 ? 2 * p.together : p.together;
  const int sets = p.rounds > p.together ? 2 : 1;
  const int bytes_of_sums =
      sets * tiles * kMultiplyingWarps * Sums::floats(p.rows) * static_cast<int>(sizeof(float));
  const auto aligned = [](int bytes) { return (bytes + 127) / 128 * 128; };
  const auto columns = [](int chunk) { return kMultiplyingWarps * chunk * Unit::kColumns; };
  const auto bytes_of_values = [&](int chunk) {
    return aligned(p.rows * (columns(chunk) + kPad) * static_cast<int>(sizeof(X)));
  };
  const auto bytes_of_x = [&](int chunk) {
    const int notes = Sums::notes(p.rows, columns(chunk));
    return bytes_of_values(chunk) + aligned(notes * static_cast<int>(sizeof(typename Sums::Note)));
  };
  const auto bytes = [&](int depth, int chunk) {
    return aligned(Plan::ring_bytes(depth)) + bytes_of_x(chunk) + bytes_of_sums;
  };
  // Gate and up come after a short product, and are long: their first units are to find room beside that. Those of codes always are.
  const int most = !Unit::kScaled && p.act >= 0 ? Unit::kDepth / 2 : Unit::kDepth;
  const auto deepest = [&](int chunk, int in) {
    return ring_depth(std::min(most, units), in, [&](int depth) { return bytes(depth, chunk); });
  };
  p.chunk = p.share;
  p.depth = deepest(p.chunk, room.all);
  if (bytes(p.depth, p.chunk) > room.all) {
    // x comes in chunks: the larger they are, the less often warps stop to bring one.
    constexpr int kChunkRings = 64 << 10;
    p.depth =
        std::min(deepest(1, room.all), std::max(kLeastDepth, kChunkRings / Plan::ring_bytes(1)));
    while (p.chunk > 1 && bytes(p.depth, p.chunk) > room.all) --p.chunk;
  } else if (Unit::kScaled) {
    p.depth = std::max(deepest(p.chunk, room.beside), std::min(p.depth, Unit::kDepth / 2));
  }
  if (Unit::kScaled && Sums::kRows == 1 && p.act >= 0) {
    // While attention and a short product of one row are under way, before gate and up, memory has little to do. Not so many that it lasts longer.
    constexpr int kMostAhead = 4;
    p.ahead = std::clamp((units - p.depth) / 4, 0, kMostAhead);
  }
  p.x_shared_stride = columns(p.chunk) + kPad;
  p.x_at = aligned(Plan::ring_bytes(p.depth));
  p.notes_at = p.x_at + bytes_of_values(p.chunk);
  p.sums_at = p.x_at + bytes_of_x(p.chunk);
  return bytes(p.depth, p.chunk);
}

template <class Unit, class Sums>
void launch_product(Context& context, Product p) {
  using Plan = BlockPlan<Unit>;
  count_tiles(p, kTileRows, Unit::kColumns);
  if (p.tiles == 0) return;
  p.share = std::max(1, (p.slots + kMultiplyingWarps - 1) / kMultiplyingWarps);
  int blocks = std::min(p.tiles, context.multiprocessors());
  const int parts = p.act >= 0 ? 2 : 1;
  p.rounds = (p.tiles + blocks - 1) / blocks;
  const int most = Sums::kRows == 1 ? kMostTogetherOfRow : std::min(kMostTogether, 32 / p.rows);
  p.together = std::min(p.rounds, std::max(1, most / parts));
  p.adds = p.residual != nullptr && p.residual == p.parts[0].y &&
           p.residual_stride == p.parts[0].y_stride;
  // Two blocks of a kernel on one multiprocessor would take turns while another one has none. In a layer every other product adds to the
  // residual stream. Such a one asks for more than half of shared memory, and the next one's blocks find room beside it, one each, if it
  // has a block everywhere: those that have no tile stay until the others have come.
  const auto half = static_cast<int>(context.shared_for_one());
  constexpr int kReserved = 2048;  // for two blocks, beside what they ask for
  const Room room = {shared_room(context), half - (p.residual != nullptr ? 0 : kReserved)};
  const int bytes = divide_memory<Unit, Sums>(p, room, p.rounds * parts * p.share);
  const int inputs = p.parts[0].matrix.inputs;
  check<Error>(bytes <= room.all, "CUDA: ", p.rows, " rows of ", inputs,
               " columns do not fit into shared memory");
  check<Error>(p.norm == nullptr || (p.chunk == p.share && p.rows <= kNormRows), "CUDA: ", p.rows,
               " rows of ", inputs,
               " columns do not fit into shared memory to be normalised there");
  auto shared = static_cast<std::size_t>(bytes);
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
  using OfRow = UnitsOfRow<Unit>;
  const bool has_pairs = takes_pairs(p.parts[0].matrix);
  if (p.rows == 1 && has_pairs) {
    launch_product<OfRow, RowSums<OfRow>>(context, p);
  } else if (p.rows <= 4 && has_pairs) {
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
