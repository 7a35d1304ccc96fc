// AWQ's tensors ("gemm"): `qweight` [inputs, outputs / 8] of words that hold eight neighbouring outputs, from the lowest bits the
// outputs 0, 2, 4, 6, 1, 3, 5, 7; `qzeros` [groups, outputs / 8] likewise; `scales` [groups, outputs].
#include <algorithm>
#include <cstring>

#include "quant/column_rows.hpp"

namespace infinilm {
namespace {

constexpr int kOutputOf[] = {0, 2, 4, 6, 1, 3, 5, 7};  // of each place in a word
constexpr int kPlaceOf[] = {0, 4, 1, 5, 2, 6, 3, 7};   // of each output

// Byte j of x[i] becomes byte i of x[j]: blocks of 1, 2 and 4 bytes change places.
void transpose(std::uint64_t x[8]) {
  constexpr std::uint64_t kMasks[] = {0x00FF00FF00FF00FFu, 0x0000FFFF0000FFFFu,
                                      0x00000000FFFFFFFFu};
  for (int step = 0; step < 3; ++step) {
    const int s = 1 << step;
    for (int i = 0; i < 8; ++i) {
      if (i & s) continue;
      const std::uint64_t changed = (x[i] >> 8 * s ^ x[i + s]) & kMasks[step];
      x[i + s] ^= changed;
      x[i] ^= changed << 8 * s;
    }
  }
}

class AwqRows final : public ColumnRows {
 public:
  explicit AwqRows(const ImportedModule& module)
      : ColumnRows(module, {}), zeros_(module.at("qzeros")) {}

 private:
  std::uint8_t zero_at(std::int64_t row, std::int64_t group) const override {
    return code_at(zeros_, group * zeros_.shape()[1] + row / 8, kPlaceOf[row % 8], 4);
  }

  void decode(Tile& tile) const override {
    const std::int64_t width = words_.shape()[1];
    for (std::int64_t k = 0; k < inputs(); k += 8) {
      const std::int64_t count = std::min<std::int64_t>(8, inputs() - k);
      for (std::int64_t j = 0; j < tile.rows; j += 8) {
        std::uint64_t x[8] = {};
        for (std::int64_t i = 0; i < count; ++i)
          x[i] = spread(word_at(words_, (k + i) * width + (tile.first + j) / 8));
        transpose(x);
        for (int place = 0; place < 8; ++place) {
          std::uint8_t* row = tile.codes.data() + (j + kOutputOf[place]) * tile.stride;
          std::memcpy(row + k, &x[place], sizeof x[place]);
        }
      }
    }
  }

  Tensor zeros_;
};

}  // namespace

std::unique_ptr<QuantizedRows> open_awq(ImportedModule module) {
  check_scales(module, "scales");
  return std::make_unique<AwqRows>(module);
}

}  // namespace infinilm
