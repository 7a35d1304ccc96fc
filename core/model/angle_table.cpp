#include "model/angle_table.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace infinilm {

void put_angles(std::span<const float> frequencies, std::int64_t position, float scale, float* cos,
                float* sin) {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = frequencies[i] * static_cast<float>(position);
    cos[i] = std::cos(angle) * scale;
    sin[i] = std::sin(angle) * scale;
  }
}

AngleTable::AngleTable(std::vector<float> frequencies, float scale)
    : frequencies_(std::move(frequencies)), scale_(scale) {}

void AngleTable::copy(std::int64_t first, Matrix cos, Matrix sin) const {
  const auto half = static_cast<std::int64_t>(frequencies_.size());
  std::shared_ptr<const Block> now;
  for (std::int64_t r = 0; r < cos.rows; ++r) {
    const std::int64_t position = first + r;
    if (now == nullptr || position % kBlock == 0) now = block(position / kBlock);
    const float* from = now->data() + position % kBlock * 2 * half;
    std::copy_n(from, half, cos.row(r));
    std::copy_n(from + half, half, sin.row(r));
  }
}

std::shared_ptr<const AngleTable::Block> AngleTable::block(std::int64_t index) const {
  const auto i = static_cast<std::size_t>(index);
  {
    const std::lock_guard lock(mutex_);
    if (i < blocks_.size() && blocks_[i] != nullptr) return blocks_[i];
  }
  std::shared_ptr<const Block> made = compute(index);  // others need not wait for it
  const std::lock_guard lock(mutex_);
  if (i >= blocks_.size()) blocks_.resize(i + 1);
  if (blocks_[i] == nullptr) blocks_[i] = std::move(made);
  return blocks_[i];
}

std::shared_ptr<const AngleTable::Block> AngleTable::compute(std::int64_t index) const {
  const std::size_t half = frequencies_.size();
  auto block = std::make_shared<Block>(static_cast<std::size_t>(kBlock) * 2 * half);
  for (std::int64_t p = 0; p < kBlock; ++p) {
    float* to = block->data() + static_cast<std::size_t>(p) * 2 * half;
    put_angles(frequencies_, index * kBlock + p, scale_, to, to + half);
  }
  return block;
}

}  // namespace infinilm
