#include "quant/column_rows.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace infinilm {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

ColumnRows::ColumnRows(const ImportedModule& module, std::vector<std::int32_t> order)
    : words_(module.at("qweight")),
      outputs_(module.outputs),
      inputs_(module.inputs),
      format_(module.format),
      scales_(module.at("scales")),
      order_(std::move(order)),
      id_(next_id()) {}

void ColumnRows::read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
                      std::span<std::uint8_t> zeros) const noexcept {
  thread_local std::uint64_t owner = 0;
  thread_local Tile tile;
  const std::int64_t first = row / kTileRows * kTileRows;
  if (owner != id_ || tile.first != first) {
    owner = id_;
    tile.first = first;
    tile.rows = std::min(kTileRows, outputs_ - first);
    // A cache line more than the row: rows a power of two apart would share their places in the cache.
    tile.stride = (inputs_ + 63) / 64 * 64 + 64;
    tile.codes.resize(static_cast<std::size_t>(kTileRows * tile.stride));
    decode(tile);
  }
  const std::uint8_t* kept = tile.codes.data() + (row - first) * tile.stride;
  if (order_.empty()) {
    std::memcpy(codes.data(), kept, codes.size());
  } else {
    for (std::size_t k = 0; k < codes.size(); ++k) codes[k] = kept[order_[k]];
  }
  for (std::size_t g = 0; g < scales.size(); ++g) {
    const auto group = static_cast<std::int64_t>(g);
    scales[g] = scale_at(scales_, group * outputs_ + row);
    if (format_.zeros) zeros[g] = zero_at(row, group);
  }
}

}  // namespace infinilm
