// Attention of many query tokens where four warps multiply together (wgmma, Hopper), for a cache of 16-bit floats and a head_dim up to
// 128 (Shah et al. 2024, FlashAttention-3).
//
//   A block of threads takes one share after the other, 128 rows and 128 keys of it at a time. Two groups of four warps multiply, 64
//   rows each; of a third, one warp brings keys and values, the others draw shares and bring their queries. Scores of one 128 keys
//   are multiplied while values of the 128 before are added up, and become weights while the other group multiplies:
//     scores [64, 128] = q [64, D] keys [128, D]^T beside sums [64, D] += p [64, 128] values [128, D]
#include <algorithm>

#include "cuda/attention_rows.cuh"
#include "cuda/tile_map.hpp"
#include "cuda/wide_tiles.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kGroups = 2, kGroupThreads = 128, kGroupRows = 64;
constexpr int kMultiplying = kGroups * kGroupThreads, kThreads = kMultiplying + kGroupThreads;
static_assert(kGroups * kGroupRows == kWideRows);
constexpr int kStepKeys = kWideBlocks * kKeys;
// Together not more than the 168 of each thread that a block of so many begins with.
constexpr int kOfMultiplying = 232, kOfBringing = 40;
static_assert(kOfMultiplying * kGroups + kOfBringing <= 168 * (kGroups + 1));

constexpr int kBringingQueries = kGroupThreads - 32;  // threads
// Places where threads meet: those that multiply; a group that waits for its turn, from here on.
constexpr int kAllGroups = 1, kFirstTurn = 2;

struct MultiplyingThreads {
  __device__ static int count() { return kMultiplying; }
  __device__ static void meet() { cuda::meet(kAllGroups, kMultiplying); }
};

// Slots in shared memory that are filled and emptied in turn.
template <int kSlots>
struct Slots {
  Arrival filled[kSlots], emptied[kSlots];

  // fillers: arrivals that fill a slot. A warp that multiplies empties one by one arrival.
  __device__ void begin(int fillers) {
    begin_arrivals(filled, kSlots, fillers);
    begin_arrivals(emptied, kSlots, kMultiplying / 32);
  }
};
template <int kSlots>
struct Cursor {
  int slot = 0;
  unsigned phase = 0;

  __device__ __forceinline__ void wait_until_filled(Slots<kSlots>& slots) const {
    wait_for_arrival(slots.filled + slot, phase);
  }
  __device__ __forceinline__ void wait_until_emptied(Slots<kSlots>& slots) const {
    wait_for_arrival(slots.emptied + slot, phase ^ 1u);  // in the beginning they are
  }
  __device__ __forceinline__ void empty(Slots<kSlots>& slots) const {
    if (is_elected()) arrive(slots.emptied + slot);
  }
  __device__ __forceinline__ void next() {
    if (++slot < kSlots) return;
    slot = 0;
    phase ^= 1u;
  }
};

template <int kD>
struct Memory {
  static constexpr int kStages = kD <= 64 ? 3 : 2;
  // Share n + 1 is drawn when the queries of n - 2 have been multiplied by all: n - 1 may still be read.
  static constexpr int kShares = 4;

  std::uint16_t queries[2][kGroups][kTileElements<kGroupRows, kD>];
  std::uint16_t keys[kStages][kTileElements<kStepKeys, kD>];
  std::uint16_t values[kStages][kTileElements<kStepKeys, kD>];
  Slots<2> of_queries;
  Slots<kStages> of_keys, of_values;
  Arrival drawn[kShares];
  Share shares[kShares];  // without rows: nothing is left

  __device__ void begin() {
    begin_arrivals(drawn, kShares);
    of_queries.begin(kBringingQueries);
    of_keys.begin(1);
    of_values.begin(1);
    show_arrivals();
  }
  __device__ __forceinline__ const Share& wait_for_share(const Cursor<kShares>& at) {
    wait_for_arrival(drawn + at.slot, at.phase);
    return shares[at.slot];
  }

  __device__ static Memory& at(unsigned char* shared) {
    const auto address = reinterpret_cast<std::uintptr_t>(shared);
    return *reinterpret_cast<Memory*>(shared + ((address + 1023) / 1024 * 1024 - address));
  }
  static constexpr std::size_t bytes() { return sizeof(Memory) + 1024; }
};

// ---- what is brought
// By one warp: keys and values of one share after the other.
template <int kD>
class BringingKeys {
 public:
  __device__ BringingKeys(const AttentionTask& task, const TileMap& map, Memory<kD>& memory)
      : task_(task), map_(map), memory_(memory) {}

  __device__ __forceinline__ void run() {
    wait_for_previous();
    for (Cursor<Memory<kD>::kShares> share;; share.next()) {
      const Share& s = memory_.wait_for_share(share);
      if (s.rows == 0) return;
      for (int b = s.block_begin; b < s.block_end; b += kWideBlocks) bring(s, b);
    }
  }

 private:
  static constexpr int kStages = Memory<kD>::kStages;

  __device__ __forceinline__ void bring(const Share& s, int b) {
    std::byte* const* blocks = task_.sequences.blocks + s.sequence.first_block + b;
    const bool has_second = b + 1 < s.block_end;
    const std::byte* const first = blocks[0];
    const std::byte* const second = has_second ? blocks[1] : nullptr;
    const auto fill = [&](Slots<kStages>& slots, std::uint16_t* tile, auto of) {
      at_.wait_until_emptied(slots);
      if (!is_elected()) return;
      Arrival* arrival = slots.filled + at_.slot;
      expect_bytes(arrival, (has_second ? 2 : 1) * kKeys * kD * 2);
      copy_block(of(task_.kv, first, s.kv_head), tile, arrival);
      if (has_second) {
        copy_block(of(task_.kv, second, s.kv_head), tile + kKeys * kPanelColumns, arrival);
      }
    };
    fill(memory_.of_keys, memory_.keys[at_.slot], keys_of<const std::byte>);
    fill(memory_.of_values, memory_.values[at_.slot], values_of<const std::byte>);
    at_.next();
  }

  // A head's 64 rows to a tile's.
  __device__ __forceinline__ void copy_block(const std::byte* head, std::uint16_t* tile,
                                             Arrival* arrival) {
#pragma unroll
    for (int panel = 0; panel < kD / kPanelColumns; ++panel) {
      copy_panel(tile + panel * kPanelElements<kStepKeys>, map_, head, panel * kPanelColumns,
                 arrival);
    }
  }

  const AttentionTask& task_;
  const TileMap& map_;
  Memory<kD>& memory_;
  Cursor<kStages> at_;  // of keys and of values
};

// By the other three warps: shares, and their queries.
template <int kD>
class BringingQueries {
 public:
  __device__ BringingQueries(const AttentionTask& task, Memory<kD>& memory)
      : task_(task), memory_(memory), thread_(static_cast<int>(threadIdx.x) - kMultiplying - 32) {}

  __device__ __forceinline__ void run() {
    for (Cursor<Memory<kD>::kShares> share;; share.next()) {
      if (thread_ == 0) {
        memory_.shares[share.slot] = draw();
        arrive(memory_.drawn + share.slot);
      }
      wait_for_previous();
      const Share& s = memory_.wait_for_share(share);
      if (s.rows == 0) return;
      at_.wait_until_emptied(memory_.of_queries);
      bring(s);
      arrive_with_copies(memory_.of_queries.filled + at_.slot);
      at_.next();
    }
  }

 private:
  // The next share in which there is something to do. The last block to find that nothing is left leaves the count as it was.
  __device__ Share draw() {
    const int count = task_.tiles * task_.splits, blocks = static_cast<int>(gridDim.x);
    for (;;) {
      int number = static_cast<int>(blockIdx.x);
      if (has_drawn_) {
        wait_for_previous();  // which may still count there
        const int before = static_cast<int>(atomicAdd(task_.drawn, 1u));
        if (before == count - 1) *task_.drawn = 0;
        number = blocks + before;
      }
      has_drawn_ = true;
      if (number >= count) return {};
      const Share s =
          share_of(task_, {number % task_.tiles, task_.tiles, number / task_.tiles, task_.splits});
      if (s.block_begin < s.block_end) return s;
    }
  }

  // Threads beside each other bring neighbouring columns of a row.
  __device__ __forceinline__ void bring(const Share& s) {
    constexpr int kPieces = kD / 8;
    const std::uint16_t* from = task_.queries + s.head * task_.kv.padded;
    for (int i = thread_; i < kWideRows * kPieces; i += kBringingQueries) {
      const int r = i / kPieces, column = i % kPieces * 8;
      const bool valid = r < s.rows && column < task_.kv.padded;
      const std::int64_t at =
          row_of(s, r) * task_.queries_stride + r % s.tile_heads * task_.kv.padded + column;
      std::uint16_t* tile = memory_.queries[at_.slot][r / kGroupRows];
      copy_async(place_in_tile<kGroupRows>(tile, r % kGroupRows, column), valid ? from + at : from,
                 valid);
    }
  }

  const AttentionTask& task_;
  Memory<kD>& memory_;
  const int thread_;
  bool has_drawn_ = false;
  Cursor<2> at_;
};

// ---- what is multiplied
template <bool kF16>
__device__ __forceinline__ void pack_weights(const float (&p)[16][4], unsigned (&packed)[8][4]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float (&of)[4] = p[2 * k + i / 2];
      packed[k][i] = pack_half<kF16>(of[i % 2 * 2], of[i % 2 * 2 + 1]);
    }
  }
}

template <bool kF16, int kD>
class Multiplying {
 public:
  __device__ Multiplying(const AttentionTask& task, Memory<kD>& memory)
      : task_(task), memory_(memory), group_(uniform(warp_index()) / 4) {}

  __device__ __forceinline__ void run() {
    wait_for_previous();
    if (group_ == kGroups - 1) let_go_on();  // the first group begins
    for (Cursor<Memory<kD>::kShares> share;; share.next()) {
      const Share s = memory_.wait_for_share(share);
      if (uniform(s.rows) == 0) return;
      query_.wait_until_filled(memory_.of_queries);
      show_to_tensor_cores();
      attend(s);
    }
  }

 private:
  __device__ void wait_for_turn() { meet(kFirstTurn + group_, 2 * kGroupThreads); }
  __device__ void let_go_on() { pass_by(kFirstTurn + (group_ + 1) % kGroups, 2 * kGroupThreads); }

  __device__ __forceinline__ void attend(const Share& s) {
    const int first = group_ * kGroupRows;
    RowState<kD> rows;
    rows.clear(task_, s, first + warp_index() % 4 * 16);
    const int lowest = position_of(s, first);
    const int highest = position_of(s, min(s.rows, first + kGroupRows) - 1);
    const float factor = task_.scale * kBitsOfE;
    const auto weigh = [&](float (&scores)[16][4], int key) {
      const bool whole = key + kStepKeys - 1 <= lowest && key >= first_key(highest, task_.window);
      if (!whole) rows.template mask<16>(key, scores);
      rows.template weigh<16>(scores, factor);
    };
    std::uint16_t* queries = memory_.queries[query_.slot][group_];
    unsigned weights[8][4];
    const int end = uniform(s.block_end) * kKeys;
    int key = uniform(s.block_begin) * kKeys;
    {
      float scores[16][4];
      key_.wait_until_filled(memory_.of_keys);
      begin_wide();
      multiply_tiles<kF16, kD>(scores, queries, memory_.keys[key_.slot]);
      commit_wide();
      end_wide(scores);
      leave_keys();
      weigh(scores, key);
      pack_weights<kF16>(scores, weights);
    }
    for (key += kStepKeys; key < end; key += kStepKeys) {
      float scores[16][4];
      key_.wait_until_filled(memory_.of_keys);
      value_.wait_until_filled(memory_.of_values);
      wait_for_turn();
      begin_wide();
      multiply_tiles<kF16, kD>(scores, queries, memory_.keys[key_.slot]);
      commit_wide();
      multiply_rows<kF16, kD>(rows.sums, weights, memory_.values[value_.slot]);
      commit_wide();
      let_go_on();
      end_wide<1>(scores);
      leave_keys();
      weigh(scores, key);
      end_wide(rows.sums);
      leave_values();
      rows.shrink();
      pack_weights<kF16>(scores, weights);
    }
    query_.empty(memory_.of_queries);
    query_.next();
    value_.wait_until_filled(memory_.of_values);
    const int tokens = min(uniform(s.sequence.past + s.sequence.rows), end) - (key - kStepKeys);
    if (tokens < kStepKeys) clear_values(memory_.values[value_.slot], tokens);
    begin_wide();
    multiply_rows<kF16, kD>(rows.sums, weights, memory_.values[value_.slot]);
    commit_wide();
    end_wide(rows.sums);
    leave_values();
    rows.gather();
    float* partial = s.splits == 1 ? nullptr : partial_of(task_, s.item, kWideRows, s.item.split);
    write_rows(task_, s, partial, first + warp_index() % 4 * 16, rows);
    if (uniform(s.splits) > 1) merge_splits<kWideRows, MultiplyingThreads>(task_, s);
  }

  // Zeros behind the last token that was brought: what lies there may be NaN, of which no weight, however small, makes nothing.
  __device__ void clear_values(std::uint16_t* tile, int tokens) {
    constexpr int kPieces = kD / 8;
    const int first = tokens * kPieces, thread = static_cast<int>(threadIdx.x);
    for (int i = first + thread; i < kStepKeys * kPieces; i += kMultiplying) {
      *reinterpret_cast<uint4*>(place_in_tile<kStepKeys>(tile, i / kPieces, i % kPieces * 8)) =
          zero4();
    }
    show_to_tensor_cores();
    MultiplyingThreads::meet();
  }

  __device__ void leave_keys() {
    key_.empty(memory_.of_keys);
    key_.next();
  }
  __device__ void leave_values() {
    value_.empty(memory_.of_values);
    value_.next();
  }

  const AttentionTask& task_;
  Memory<kD>& memory_;
  const int group_;
  Cursor<2> query_;
  Cursor<Memory<kD>::kStages> key_, value_;
};

template <bool kF16, int kD>
__global__ void __launch_bounds__(kThreads, 1)
    attention_wide_kernel(const __grid_constant__ AttentionTask task,
                          const __grid_constant__ TileMap map) {
  INFINILM_SHARED_MEMORY(shared);
  Memory<kD>& memory = Memory<kD>::at(shared);
  let_next_start();
  if (threadIdx.x == 0) memory.begin();
  __syncthreads();
  if (uniform(warp_index()) >= kMultiplying / 32) {
    leave_registers<kOfBringing>();
    if (uniform(warp_index()) == kMultiplying / 32) {
      BringingKeys<kD>(task, map, memory).run();
    } else {
      BringingQueries<kD>(task, memory).run();
    }
  } else {
    take_registers<kOfMultiplying>();
    Multiplying<kF16, kD>(task, memory).run();
  }
}

template <bool kF16>
void launch(Context& context, const AttentionTask& task, unsigned blocks) {
  const TileMap map = map_tiles(task.kv);
  if (task.kv.padded <= 64) {
    context.launch(attention_wide_kernel<kF16, 64>, blocks, kThreads, Memory<64>::bytes(), task,
                   map);
  } else {
    context.launch(attention_wide_kernel<kF16, 128>, blocks, kThreads, Memory<128>::bytes(), task,
                   map);
  }
}

}  // namespace

bool has_wide_attention(const Context& context, const AttentionShape& shape) {
  return context.has_wide_products() && has_tensor_attention(shape) && shape.head_dim > 32 &&
         shape.head_dim <= 128;
}

void attend_wide(Context& context, const AttentionTask& task) {
  const auto blocks =
      static_cast<unsigned>(std::min(task.tiles * task.splits, context.multiprocessors()));
  if (task.kv.dtype == DataType::F16) {
    launch<true>(context, task, blocks);
  } else {
    launch<false>(context, task, blocks);
  }
}

}  // namespace infinilm::cuda
