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

void ColumnRows::fill(Tile& tile, std::int64_t first) const {
  tile.first = first;
  tile.rows = std::min(kTileRows, outputs_ - first);
  // A cache line more than the row: rows a power of two apart would share their places in the cache.
  tile.stride = (inputs_ + 63) / 64 * 64 + 64;
  tile.codes.resize(static_cast<std::size_t>(kTileRows * tile.stride));
  decode(tile);
  const std::int64_t groups = group_count(format_, inputs_);
  tile.scales.resize(static_cast<std::size_t>(kTileRows * groups));
  tile.zeros.resize(format_.zeros ? tile.scales.size() : 0);
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t j = 0; j < tile.rows; ++j) {
      const auto at = static_cast<std::size_t>(j * groups + g);
      tile.scales[at] = scale_at(scales_, g * outputs_ + first + j);
      if (format_.zeros) tile.zeros[at] = zero_at(first + j, g);
    }
  }
}

void ColumnRows::read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
                      std::span<std::uint8_t> zeros) const noexcept {
  thread_local std::uint64_t owner = 0;
  thread_local Tile tile;
  const std::int64_t first = row / kTileRows * kTileRows;
  if (owner != id_ || tile.first != first) fill(tile, first);
  owner = id_;
  const auto j = static_cast<std::size_t>(row - first);
  const std::uint8_t* kept = tile.codes.data() + j * static_cast<std::size_t>(tile.stride);
  if (order_.empty()) {
    std::memcpy(codes.data(), kept, codes.size());
  } else {
    for (std::size_t k = 0; k < codes.size(); ++k) codes[k] = kept[order_[k]];
  }
  std::copy_n(tile.scales.data() + j * scales.size(), scales.size(), scales.data());
  std::copy_n(tile.zeros.data() + j * zeros.size(), zeros.size(), zeros.data());
}

}  // namespace infinilm
