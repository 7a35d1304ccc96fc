#include "cuda/step_plan.hpp"

#include <algorithm>
#include <cstring>

namespace infinilm::cuda {
namespace {

// Where the parts begin in the buffer.
struct Places {
  std::size_t info, rows, tiles, blocks, end;
};

std::size_t aligned(std::size_t n) { return (n + 15) / 16 * 16; }

std::int32_t narrow(std::int64_t n) { return static_cast<std::int32_t>(n); }

std::size_t tiles_of(std::span<const SequenceRows> sequences, int tile_tokens) {
  std::int64_t count = 0;
  for (const SequenceRows& s : sequences) count += (s.rows + tile_tokens - 1) / tile_tokens;
  return static_cast<std::size_t>(count);
}

Places places_of(std::size_t ids, std::span<const SequenceRows> sequences, int tile_tokens) {
  std::size_t rows = 0, blocks = 0;
  for (const SequenceRows& s : sequences) {
    rows = std::max(rows, static_cast<std::size_t>(s.row_begin + s.rows));
    blocks += s.blocks.size();
  }
  Places p{};
  p.info = aligned(ids * sizeof(std::int64_t));
  p.rows = p.info + aligned(sequences.size() * sizeof(SequenceInfo));
  p.tiles = p.rows + aligned(rows * sizeof(std::int32_t));
  p.blocks = p.tiles + aligned(tiles_of(sequences, tile_tokens) * sizeof(QueryTile));
  p.end = p.blocks + aligned(blocks * sizeof(std::byte*));
  return p;
}

template <class T>
void put(std::vector<std::byte>& memory, std::size_t& at, const T& value) {
  std::memcpy(memory.data() + at, &value, sizeof value);
  at += sizeof value;
}

}  // namespace

bool has_one_row_each(std::span<const SequenceRows> sequences) {
  return std::all_of(sequences.begin(), sequences.end(),
                     [](const SequenceRows& s) { return s.rows == 1; });
}

const std::int64_t* StepPlan::ids(Context& context, std::span<const std::int64_t> ids) {
  if (sent_.empty() || !std::ranges::equal(ids, ids_)) send(context, ids, {}, tile_tokens_);
  return reinterpret_cast<const std::int64_t*>(memory_.data());
}

void StepPlan::begin(Context& context, std::span<const std::int64_t> ids,
                     std::span<const SequenceRows> sequences, std::span<const Transfer> others,
                     const std::int64_t* chosen) {
  send(context, ids, sequences, has_one_row_each(sequences) ? 1 : tile_tokens_, others, chosen);
}

const Sequences& StepPlan::sequences(Context& context, std::span<const SequenceRows> sequences,
                                     int tile_tokens) {
  // The ids stay: they lie in front.
  const std::vector<std::int64_t> ids = ids_;
  send(context, ids, sequences, tile_tokens);
  return on_device_;
}

void StepPlan::send(Context& context, std::span<const std::int64_t> ids,
                    std::span<const SequenceRows> sequences, int tile_tokens,
                    std::span<const Transfer> others, const std::int64_t* chosen) {
  const Places p = places_of(ids.size(), sequences, tile_tokens);
  next_.assign(p.end, std::byte{});
  if (!ids.empty()) std::memcpy(next_.data(), ids.data(), ids.size_bytes());
  std::size_t info = p.info, tiles = p.tiles, blocks = p.blocks;
  std::fill(next_.begin() + static_cast<std::ptrdiff_t>(p.rows),
            next_.begin() + static_cast<std::ptrdiff_t>(p.tiles), std::byte{0xff});
  std::int32_t first_block = 0, index = 0;
  for (const SequenceRows& s : sequences) {
    put(next_, info,
        SequenceInfo{narrow(s.row_begin), narrow(s.rows), narrow(s.past), first_block});
    for (std::int64_t r = 0; r < s.rows; ++r) {
      std::size_t row = p.rows + static_cast<std::size_t>(s.row_begin + r) * sizeof(std::int32_t);
      put(next_, row, index);
    }
    for (std::int64_t first = 0; first < s.rows; first += tile_tokens) {
      put(next_, tiles, QueryTile{index, narrow(first)});
    }
    for (std::byte* const block : s.blocks) put(next_, blocks, block);
    first_block += narrow(static_cast<std::int64_t>(s.blocks.size()));
    ++index;
  }
  tile_tokens_ = tile_tokens;
  tile_count_ = static_cast<int>(tiles_of(sequences, tile_tokens));
  ids_.assign(ids.begin(), ids.end());
  const bool grows = next_.size() > memory_.size();
  constexpr std::size_t kFirst = std::size_t{1} << 16;
  std::byte* data = context.scratch(memory_, std::max(next_.size(), kFirst));
  on_device_.info = reinterpret_cast<const SequenceInfo*>(data + p.info);
  on_device_.sequence_of_row = reinterpret_cast<const std::int32_t*>(data + p.rows);
  on_device_.rows = narrow(static_cast<std::int64_t>((p.tiles - p.rows) / sizeof(std::int32_t)));
  on_device_.tiles = reinterpret_cast<const QueryTile*>(data + p.tiles);
  on_device_.blocks = reinterpret_cast<std::byte* const*>(data + p.blocks);
  std::vector<Transfer> transfers(others.begin(), others.end());
  if (chosen != nullptr) {
    // What lies there then is not known here.
    sent_.clear();
    transfers.push_back({next_.data() + p.info, data + p.info, p.end - p.info});
    transfers.push_back({chosen, data, ids.size_bytes(), true});
    return context.upload(transfers);
  }
  if (grows || next_ != sent_) {
    // A recording notes where things lie; whoever runs it sends them.
    if (context.is_recording()) return sent_.clear();
    transfers.push_back({next_.data(), data, next_.size()});
    sent_.clear();  // until it is
  }
  if (transfers.empty()) return;
  context.upload(transfers);
  if (transfers.size() > others.size()) sent_.swap(next_);
}

}  // namespace infinilm::cuda
