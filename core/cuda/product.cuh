// The kernel behind product.hpp, for one format.
//
// A block of warps takes tiles of 16 outputs, one after the other. The warps share a row's columns: of kWarps warps, w has
// numbers w, w + kWarps, … of the pieces that fit a slot of the ring below, one unit (32, 64 or 128 columns) or two, and the
// sums of all are added at the end. In a unit, lane (g, t) of a warp, g = lane / 4, multiplies columns 8 t … 8 t + 7 of every 32
// of outputs g and g + 8:
//
//             columns  0      8      16     24    31
//   output g          | t = 0 | t = 1 | t = 2 | t = 3 |
//
// which is, with columns numbered in another order for W and x alike, what the tensor cores take.
//
// Weights come through a ring in shared memory, which each warp keeps for itself: of its slots one is multiplied while the others
// are on their way, those of the next tile while sums are added, and the first of all while the kernel before still runs. For
// that a block should leave room for one of the next kernel beside it.
#pragma once

#include <algorithm>
#include <limits>

#include "cuda/pieces.cuh"
#include "cuda/product.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

inline constexpr int kSumStride = 20;  // of the 16 sums of a column: no bank conflicts

// ---- formats: how a unit lies in a slot of the ring, and what a lane holds of it
template <Layout kLayout>
struct FloatUnit {
  static constexpr bool kScaled = false;
  static constexpr int kItem = kLayout == Layout::F32 ? 4 : 2;
  static constexpr int kRowBytes = 128;  // of each of the 16 outputs: whole cache lines
  static constexpr int kColumns = kRowBytes / kItem, kPieces = kColumns / 32;
  static constexpr int kUnits = 1;  // of a slot
  static constexpr int kWarps = 16, kDepth = 3;
  static constexpr int kLoads = kItem / 2;  // of 16 bytes, for a lane's columns of a piece
  uint4 v[kPieces][2][kLoads];

  __host__ __device__ static constexpr int slot_bytes(const UnitLayout&) {
    return kTileRows * kRowBytes;
  }
  // Where a row's 16 bytes number `chunk` are kept: lanes of two rows read at once, from different banks.
  __device__ __forceinline__ static int place(int row, int chunk) {
    constexpr int kOther = kItem == 4 ? 1 : 4;
    return row * kRowBytes + (chunk ^ (row % 2 * kOther)) * 16;
  }
  // What a lane copies of each of a warp's units of a tile: 16 bytes of every fourth row.
  struct Source {
    const std::byte* from;
    std::int64_t below;  // bytes to the next of them
    int rows, left;      // that there are: of the matrix, and bytes of the row

    __device__ __forceinline__ void open(const MatrixView& m, int tile) {
      const int row = tile * kTileRows + lane_index() / 8;
      const int column = warp_index() * kRowBytes + lane_index() % 8 * 16;
      from = m.data + row * m.row_bytes + column;
      below = 4 * m.row_bytes;
      rows = m.outputs - row;
      left = static_cast<int>(m.row_bytes) - column;
    }
    // What is `slots` slots behind the warp's first.
    __device__ __forceinline__ void fetch(int slots, unsigned char* slot) const {
      const int offset = slots * kRowBytes;
      unsigned char* to = slot + place(lane_index() / 8, lane_index() % 8);
#pragma unroll
      for (int i = 0; i < kTileRows / 4; ++i) {
        copy_async(to + i * 4 * kRowBytes, from + i * below + offset,
                   offset < left && i * 4 < rows);
      }
    }
  };
  __device__ __forceinline__ void load(const unsigned char* slot, const UnitLayout&, int) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const int chunk = (piece * 4 + t) * kLoads + i;
          v[piece][h][i] = *reinterpret_cast<const uint4*>(slot + place(g + h * 8, chunk));
        }
      }
    }
  }
  __device__ __forceinline__ Eight eight(int piece, int h) const {
    const uint4& first = v[piece][h][0];
    if constexpr (kLayout == Layout::F32) return eight_of_f32(first, v[piece][h][kLoads - 1]);
    if constexpr (kLayout == Layout::F16) return eight_of_f16(first);
    return eight_of_bf16(first);
  }
  template <bool>
  __device__ __forceinline__ Pairs pairs(int piece, int h) const {
    const uint4& all = v[piece][h][0];
    return {{all.x, all.y, all.z, all.w}};
  }
  __device__ __forceinline__ float scale(int, int) const { return 1.0f; }
};

// kZeros: groups have zeros of their own; otherwise the format's middle is known here.
template <Layout kLayout, int kRuns, bool kZeros>
struct QuantisedUnit {
  static constexpr bool kScaled = true;
  static constexpr int kColumns = kLayout == Layout::Q4 ? 128 : 64;
  static constexpr int kPieces = kColumns / 32;
  // Two in a slot, since what each slot costs besides is much beside a unit.
  static constexpr int kUnits = 2, kWarps = 8, kDepth = 4;
  static constexpr int kMostBytes = kUnits * (1024 + kRuns * kTileRows * 3);
  uint4 codes[2];
  unsigned scales[kRuns];  // of outputs g and g + 8
  std::uint16_t zeros[kZeros ? kRuns : 1];

  __host__ __device__ static constexpr int slot_bytes(const UnitLayout& layout) {
    return kUnits * layout.bytes;
  }
  struct Source {
    const std::byte* from;
    int bytes;  // of a slot
    int left;   // to the end of the tile

    __device__ __forceinline__ void open(const MatrixView& m, int tile) {
      bytes = kUnits * m.unit.bytes;
      const int skip = warp_index() * bytes + lane_index() * 16;
      from = m.data + tile * m.unit.tile_bytes() + skip;
      left = static_cast<int>(m.unit.tile_bytes()) - skip;
    }
    __device__ __forceinline__ void fetch(int slots, unsigned char* slot) const {
      const int offset = slots * bytes, lane = lane_index() * 16;
      const std::byte* p = from + offset;
#pragma unroll
      for (int at = 0; at < kMostBytes; at += 512) {
        if (at + lane < bytes && offset + at < left) copy_async(slot + at + lane, p + at, true);
      }
    }
  };
  // The `which`-th of a slot.
  __device__ __forceinline__ void load(const unsigned char* slot, const UnitLayout& layout,
                                       int which) {
    slot += which * layout.bytes;
    const int lane = lane_index(), g = lane / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      codes[h] = *reinterpret_cast<const uint4*>(slot + h * 512 + lane * 16);
    }
    const auto* s = reinterpret_cast<const unsigned*>(slot + 1024) + g * kRuns;
    const auto* z = reinterpret_cast<const std::uint16_t*>(slot + 1024 + kRuns * 32) + g * kRuns;
    if constexpr (kRuns == 4) {  // both are aligned for it
      const auto all = *reinterpret_cast<const uint4*>(s);
      scales[0] = all.x, scales[1] = all.y, scales[2] = all.z, scales[3] = all.w;
    } else {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) scales[r] = s[r];
    }
    if constexpr (kZeros) {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) zeros[r] = z[r];
    }
  }
  __device__ __forceinline__ static unsigned word(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
  __device__ __forceinline__ int zero(int piece, int h) const {
    if constexpr (!kZeros) return kLayout == Layout::Q4 ? 8 : 128;
    return zeros[piece * kRuns / kPieces] >> (8 * h) & 0xff;
  }
  __device__ __forceinline__ Eight eight(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) return eight_of_q4(word(codes[h], piece), zero(piece, h));
    return eight_of_q8(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1), zero(piece, h));
  }
  template <bool kF16>
  __device__ __forceinline__ Pairs pairs(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) {
      return pairs_of_q4<kF16>(word(codes[h], piece), zero(piece, h));
    }
    return pairs_of_q8<kF16>(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1),
                             zero(piece, h));
  }
  __device__ __forceinline__ float scale(int piece, int h) const {
    const unsigned both = scales[piece * kRuns / kPieces];
    return h == 0 ? low_f16(both) : high_f16(both);
  }
};

// ---- arithmetic: sums of 16 outputs x some rows of x, spread over the lanes of a warp
// 16-bit floats on tensor cores; kCount times eight rows.
template <int kCount, bool kF16>
struct TensorSums {
  using X = std::uint16_t;
  __device__ __forceinline__ static X rounded(float x) { return to_half<kF16>(x); }
  __device__ __forceinline__ static void put_four(X* to, const float4& v) {
    *reinterpret_cast<uint2*>(to) = {pack_half<kF16>(v.x, v.y), pack_half<kF16>(v.z, v.w)};
  }
  static constexpr int kRows = kCount * 8;
  // Two sums for each output, where there is room: one product need not wait for the one before.
  static constexpr int kChains = kCount <= 2 ? 2 : 1;
  float d[kCount][4], other[kCount][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) d[i][j] = other[i][j] = 0.0f;
    }
  }
  // `x`: of the first column of the unit.
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const X* x, int stride, int rows) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Pairs low = unit.template pairs<kF16>(piece, 0),
                  high = unit.template pairs<kF16>(piece, 1);
      const unsigned first[4] = {low.v[0], high.v[0], low.v[1], high.v[1]};
      const unsigned second[4] = {low.v[2], high.v[2], low.v[3], high.v[3]};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int row = i * 8 + g;
        uint4 b = zero4();
        if (row < rows) b = *reinterpret_cast<const uint4*>(x + row * stride + piece * 32 + t * 8);
        if constexpr (Unit::kScaled) {
          float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
          multiply<kF16>(part, first, b.x, b.y);
          multiply<kF16>(part, second, b.z, b.w);
          const float s0 = unit.scale(piece, 0), s1 = unit.scale(piece, 1);
          d[i][0] = fmaf(part[0], s0, d[i][0]);
          d[i][1] = fmaf(part[1], s0, d[i][1]);
          d[i][2] = fmaf(part[2], s1, d[i][2]);
          d[i][3] = fmaf(part[3], s1, d[i][3]);
        } else {
          multiply<kF16>(d[i], first, b.x, b.y);
          multiply<kF16>(kChains == 2 ? other[i] : d[i], second, b.z, b.w);
        }
      }
    }
  }
  // to[row of x * kSumStride + output]
  __device__ __forceinline__ void store(float* to, int rows) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = i * 8 + 2 * t + j % 2;
        if (row < rows) to[row * kSumStride + g + j / 2 * 8] = d[i][j] + other[i][j];
      }
    }
  }
};

// float32, kCount rows.
template <int kCount>
struct FloatSums {
  using X = float;
  __device__ __forceinline__ static X rounded(float x) { return x; }
  __device__ __forceinline__ static void put_four(X* to, const float4& v) {
    *reinterpret_cast<float4*>(to) = v;
  }
  static constexpr int kRows = kCount;
  float d[kCount][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = 0.0f;
  }
  template <class Unit>
  __device__ __forceinline__ void add(const Unit& unit, const X* x, int stride, int rows) {
    const int t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < Unit::kPieces; ++piece) {
      const Eight w[2] = {unit.eight(piece, 0), unit.eight(piece, 1)};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i >= rows) break;
        const auto* p = reinterpret_cast<const uint4*>(x + i * stride + piece * 32 + t * 8);
        const Eight e = eight_of_f32(p[0], p[1]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float sum = Unit::kScaled ? 0.0f : d[i][h];
#pragma unroll
          for (int k = 0; k < 8; ++k) sum = fmaf(w[h].v[k], e.v[k], sum);
          d[i][h] = Unit::kScaled ? fmaf(sum, unit.scale(piece, h), d[i][h]) : sum;
        }
      }
    }
  }
  __device__ __forceinline__ void store(float* to, int rows) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = d[i][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0 && i < rows) to[i * kSumStride + g + h * 8] = sum;
      }
    }
  }
};

// ---- x into shared memory
__device__ __forceinline__ float4 load_four(const float* x) {
  return *reinterpret_cast<const float4*>(x);
}

// All columns, normalised. A thread keeps what it has read until the sum of squares is known.
template <class Plan, class Sums>
__device__ __forceinline__ void stage_normed(const Product& p, int count, typename Sums::X* to) {
  constexpr int kHold = kMostNormed / (Plan::kThreads * 4);
  const int inputs = p.parts[0].matrix.inputs, begin = static_cast<int>(threadIdx.x) * 4;
  for (int r = 0; r < p.rows; ++r) {
    float4 v[kHold], w[kHold];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      const int at = begin + i * Plan::kThreads * 4;
      const bool inside = at < inputs;
      v[i] = inside ? load_four(p.x + r * p.x_stride + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      w[i] = inside ? load_four(p.norm + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      sum = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, sum));
      sum = fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, sum));
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(inputs) + p.eps);
#pragma unroll
    for (int i = 0; i < kHold; ++i) {
      const int at = begin + i * Plan::kThreads * 4;
      if (at >= count) break;
      const float4 y = make_float4(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y,
                                   v[i].z * scale * w[i].z, v[i].w * scale * w[i].w);
      Sums::put_four(to + r * p.x_shared_stride + at, y);
      if (blockIdx.x == 0 && p.normed != nullptr && at < inputs) {
        *reinterpret_cast<float4*>(p.normed + r * p.normed_stride + at) = y;
      }
    }
  }
}

// Not by copy_async: to wait for it would be to wait for all weights on their way.
__device__ __forceinline__ void stage_rounded(const Product& p, int begin, int count,
                                              std::uint16_t* to) {
  const int eights = count / 8, threads = static_cast<int>(blockDim.x);
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < p.rows * eights; i += threads) {
    const int r = i / eights, column = begin + i % eights * 8;
    const auto* from = reinterpret_cast<const uint4*>(p.rounded + r * p.rounded_stride + column);
    *reinterpret_cast<uint4*>(to + r * p.x_shared_stride + column - begin) =
        column < p.rounded_stride ? *from : zero4();
  }
}

// A row's columns from `begin` on, four at a time.
template <class Sums>
__device__ __forceinline__ void stage_fours(const Product& p, int r, int begin, int count,
                                            typename Sums::X* to) {
  const float* x = p.x + r * p.x_stride + begin;
  const int left = p.parts[0].matrix.inputs - begin, threads = static_cast<int>(blockDim.x);
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += threads * 4) {
    Sums::put_four(to + i, i < left ? load_four(x + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f));
  }
}

template <class Sums>
__device__ __forceinline__ void stage_ones(const Product& p, int r, int begin, int count,
                                           typename Sums::X* to) {
  const float* x = p.x + r * p.x_stride + begin;
  const int left = p.parts[0].matrix.inputs - begin, threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
    to[i] = Sums::rounded(i < left ? x[i] : 0.0f);
  }
}

// Columns from `begin` on, `count` of them; zeros behind the matrix.
template <class Plan, class Sums>
__device__ __forceinline__ void stage(const Product& p, int begin, int count,
                                      typename Sums::X* to) {
  if (p.norm != nullptr) return stage_normed<Plan, Sums>(p, count, to);
  if constexpr (sizeof(typename Sums::X) == 2) {
    if (p.rounded != nullptr) return stage_rounded(p, begin, count, to);
  }
  for (int r = 0; r < p.rows; ++r) {
    if (p.fours) {
      stage_fours<Sums>(p, r, begin, count, to + r * p.x_shared_stride);
    } else {
      stage_ones<Sums>(p, r, begin, count, to + r * p.x_shared_stride);
    }
  }
}

// ---- the kernel
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

inline constexpr int kStaticShared = 4096;  // at most
inline constexpr int kLeastDepth = 2, kMostDepth = 4;

// How a block works; kTiles 2: tile t of parts 0 and 1 together, for act(gate) * up.
template <class Unit, class Sums, int kTiles>
struct BlockPlan {
  static constexpr bool kMany = Sums::kRows > 16;  // x of one step takes much shared memory then
  static constexpr int kWarps = Unit::kWarps / (Unit::kScaled ? 1 : kMany ? 2 : kTiles);
  static constexpr int kThreads = kWarps * 32;
  // Slots of a ring, where shared memory has room for them.
  static constexpr int kDepth = Unit::kScaled ? Unit::kDepth / kTiles : Unit::kDepth;
  static_assert(kDepth >= kLeastDepth && kDepth <= kMostDepth);
  static constexpr int kBlocks = kMany ? 1 : 2;  // that a multiprocessor has registers for
  // With two sets of sums, one is added up while the next tile's are written.
  static constexpr int kSets = kMany ? 1 : 2;

  // Floats of a set.
  __host__ __device__ static constexpr int sums(int rows) {
    return kWarps * kTiles * rows * kSumStride;
  }
  static int ring_bytes(const UnitLayout& layout, int depth) {
    return kWarps * kTiles * depth * Unit::slot_bytes(layout);
  }
};

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

// A warp's units of its block's tiles, on their way into its ring.
template <class Unit, class Plan, int kTiles>
struct Stream {
  const Product& p;
  const Tiles& tiles;
  unsigned char* ring;
  int slot_bytes, steps;
  int number = 0, tile = 0, step = 0, slot = 0;
  typename Unit::Source sources[kTiles] = {};

  __device__ __forceinline__ unsigned char* slot_of(int i, int at) const {
    return ring + (i * p.depth + at) * slot_bytes;
  }
  __device__ __forceinline__ void open() {
    tile = tiles[number];
    if (tile >= p.tiles) return;
    const Place at = kTiles == 1 ? place_of(p, tile) : Place{0, tile};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) sources[i].open(p.parts[at.part + i].matrix, at.tile);
  }
  // Asks for the next one; behind the last for nothing, but as a group of copies all the same.
  __device__ __forceinline__ void fetch() {
    if (step == 0) open();
    if (tile < p.tiles) {
      if (step * Plan::kWarps + warp_index() < p.slots) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) sources[i].fetch(step * Plan::kWarps, slot_of(i, slot));
      }
      if (++step == steps) {
        step = 0;
        ++number;
      }
    }
    commit_copies();
    slot = slot + 1 == p.depth ? 0 : slot + 1;
  }
};

// Sums of all warps become outputs of a tile.
template <class Plan, int kTiles>
__device__ __forceinline__ void finish_tile(const Product& p, int tile, const float* sums) {
  const Place at = kTiles == 1 ? place_of(p, tile) : Place{0, tile};
  const ProductPart& part = p.parts[at.part];
  for (int i = static_cast<int>(threadIdx.x); i < p.rows * kTileRows; i += Plan::kThreads) {
    const int r = i / kTileRows, n = i % kTileRows, output = at.tile * kTileRows + n;
    if (output >= part.matrix.outputs) continue;
    float* y = part.y + r * part.y_stride + output;
    const float before = p.residual ? *y : 0.0f;
    float value = sum_of<Plan, kTiles>(sums, p.rows, 0, r, n);
    if (part.bias != nullptr) value += part.bias[output];
    if constexpr (kTiles == 2) {
      float up = sum_of<Plan, kTiles>(sums, p.rows, 1, r, n);
      if (p.parts[1].bias != nullptr) up += p.parts[1].bias[output];
      value = activate(value, p.act) * up;
    }
    *y = p.residual ? before + value : value;
  }
}

template <class Unit, class Sums, int kTiles>
__global__ void __launch_bounds__(BlockPlan<Unit, Sums, kTiles>::kThreads,
                                  BlockPlan<Unit, Sums, kTiles>::kBlocks)
    product_kernel(Product p) {
  using Plan = BlockPlan<Unit, Sums, kTiles>;
  constexpr int kSlotColumns = Unit::kUnits * Unit::kColumns;
  INFINILM_SHARED_MEMORY(memory);
  let_next_start();
  auto* x = reinterpret_cast<typename Sums::X*>(memory);
  auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
  const UnitLayout layout = p.parts[0].matrix.unit;
  const int warp = warp_index(), slot_bytes = Unit::slot_bytes(layout);
  const int steps = p.steps;
  auto* ring = reinterpret_cast<unsigned char*>(sums + Plan::kSets * Plan::sums(p.rows)) +
               warp * kTiles * p.depth * slot_bytes;
  __shared__ int upcoming[Tiles::kUpcoming];
  Tiles tiles(p, upcoming);
  Stream<Unit, Plan, kTiles> stream{p, tiles, ring, slot_bytes, steps};
  for (int j = 0; j < p.depth; ++j) stream.fetch();
  if (p.norm != nullptr && static_cast<int>(threadIdx.x) * 32 < p.parts[0].matrix.inputs) {
    prefetch_line(p.norm + threadIdx.x * 32);
  }

  wait_for_previous();
  int staged = -1, slot = 0, set = 0;
  for (int number = 0, tile = tiles[0]; tile < p.tiles; tile = tiles[++number]) {
    tiles.draw();
    Sums d[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) d[i].clear();
    for (int begin = 0; begin < steps; begin += p.chunk_steps) {
      if (staged != begin) {
        if (staged >= 0) __syncthreads();
        stage<Plan, Sums>(p, begin * Plan::kWarps * kSlotColumns,
                          p.chunk_steps * Plan::kWarps * kSlotColumns, x);
        __syncthreads();
        staged = begin;
      }
      const int end = min(begin + p.chunk_steps, steps);
      for (int step = begin; step < end; ++step) {
        wait_for_oldest(p.depth);
        __syncwarp();
        if (step * Plan::kWarps + warp < p.slots) {
          const auto* columns = x + ((step - begin) * Plan::kWarps + warp) * kSlotColumns;
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
#pragma unroll
            for (int u = 0; u < Unit::kUnits; ++u) {
              if (u > 0 && (step * Plan::kWarps + warp) * Unit::kUnits + u >= layout.units) break;
              Unit unit;
              unit.load(stream.slot_of(i, slot), layout, u);
              d[i].add(unit, columns + u * Unit::kColumns, p.x_shared_stride, p.rows);
            }
          }
        }
        __syncwarp();  // the slot has been read
        stream.fetch();
        slot = slot + 1 == p.depth ? 0 : slot + 1;
      }
    }
    if constexpr (Plan::kSets == 1) __syncthreads();  // the sums of the tile before have been read
    float* mine = sums + set * Plan::sums(p.rows);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      d[i].store(mine + (warp * kTiles + i) * p.rows * kSumStride, p.rows);
    }
    tiles.publish(number);
    __syncthreads();
    finish_tile<Plan, kTiles>(p, tile, mine);
    set = Plan::kSets - 1 - set;
  }
}

// ---- its launch
template <class Unit, class Sums, int kTiles>
void launch_product(Context& context, Product p) {
  using Plan = BlockPlan<Unit, Sums, kTiles>;
  using X = typename Sums::X;
  constexpr int kSlotColumns = Unit::kUnits * Unit::kColumns;
  constexpr int kStep = Plan::kWarps * kSlotColumns;
  const MatrixView& first = p.parts[0].matrix;
  p.slots = (first.inputs + kSlotColumns - 1) / kSlotColumns;
  const int steps = std::max(1, (p.slots + Plan::kWarps - 1) / Plan::kWarps);
  p.steps = steps;
  const int parts = kTiles == 2 ? 1 : p.part_count;
  p.tiles = 0;
  for (int i = 0; i < kMostParts; ++i) {
    p.first_tiles[i] = i < parts ? p.tiles : std::numeric_limits<int>::max();
    if (i < parts) p.tiles += (p.parts[i].matrix.outputs + kTileRows - 1) / kTileRows;
  }
  // 64 bytes beyond a multiple of 128, so that two rows of x lie in different banks.
  constexpr int kPad = 64 / sizeof(X);
  const auto bytes_of_x = [&](int steps) {
    const int bytes = p.rows * (steps * kStep + kPad) * static_cast<int>(sizeof(X));
    return (bytes + 127) / 128 * 128;
  };
  const int room = static_cast<int>(context.shared_limit()) - kStaticShared;
  const auto bytes_of_rest = [&](int depth) {
    return Plan::kSets * Plan::sums(p.rows) * 4 + Plan::ring_bytes(first.unit, depth);
  };
  p.depth = Plan::kDepth;
  while (p.depth > kLeastDepth && bytes_of_rest(p.depth) + bytes_of_x(1) > room) --p.depth;
  const int rest = bytes_of_rest(p.depth);
  p.chunk_steps = steps;
  while (p.chunk_steps > 1 && rest + bytes_of_x(p.chunk_steps) > room) --p.chunk_steps;
  check<Error>(rest + bytes_of_x(p.chunk_steps) <= room, "CUDA: ", p.rows, " rows of ",
               first.inputs, " columns do not fit into shared memory");
  check<Error>(p.norm == nullptr || p.chunk_steps == steps, "CUDA: a row of ", first.inputs,
               " columns does not fit into shared memory to be normalised there");
  p.x_shared_stride = p.chunk_steps * kStep + kPad;
  p.sums_at = bytes_of_x(p.chunk_steps);
  const int blocks = std::min(p.tiles, context.multiprocessors());
  p.assigned = (p.depth + steps - 1) / steps + 1;
  static_assert(kMostDepth + 1 < Tiles::kUpcoming);
  if (p.tiles > blocks * p.assigned) p.tickets = context.tickets();
  context.launch(product_kernel<Unit, Sums, kTiles>, dim3(static_cast<unsigned>(blocks)),
                 Plan::kThreads, static_cast<std::size_t>(p.sums_at + rest), p);
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
  } else if (p.rows <= 16) {
    launch_tiles<Unit, TensorSums<2, kF16>>(context, p);
  } else if constexpr (!Unit::kScaled) {
    launch_product<Unit, TensorSums<8, kF16>, 1>(
        context, p);  // act(gate) * up at once would spill registers
  }
}

template <class Unit>
void launch_quantised(Context& context, const Product& p) {
  switch (p.compute) {
    case DataType::BF16:
      return launch_tensor_sums<Unit, false>(context, p);
    case DataType::F16:
      return launch_tensor_sums<Unit, true>(context, p);
    default:
      return launch_float_sums<Unit>(context, p);
  }
}

template <Layout kLayout, int kRuns>
void launch_runs(Context& context, const Product& p) {
  if (p.parts[0].matrix.unit.zeros) {
    launch_quantised<QuantisedUnit<kLayout, kRuns, true>>(context, p);
  } else {
    launch_quantised<QuantisedUnit<kLayout, kRuns, false>>(context, p);
  }
}

// One for each file of instances.
void launch_floats(Context& context, const Product& product);  // float32 arithmetic, F32, F16, BF16
void launch_halves(Context& context, const Product& product);  // 16-bit arithmetic, F16, BF16
void launch_q8(Context& context, const Product& product);      // any, 8 bits
void launch_q4(Context& context, const Product& product);      // any, 4 bits

}  // namespace infinilm::cuda
