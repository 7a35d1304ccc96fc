// GPTQ's tensors: `qweight` [inputs / n, outputs] of words that hold n = 32 / bits neighbouring inputs, lowest first; `qzeros`
// [groups, outputs / n] likewise along the outputs, less one in the first version of the format; `scales` [groups, outputs];
// `g_idx` [inputs] names the group of each input.
#include <cstring>
#include <utility>

#include "infinilm/error.hpp"
#include "quant/column_rows.hpp"

namespace infinilm {
namespace {

class GptqRows final : public ColumnRows {
 public:
  GptqRows(const ImportedModule& module, std::vector<std::int32_t> order)
      : ColumnRows(module, std::move(order)),
        zeros_(module.at("qzeros")),
        less_(module.scheme.zeros_less_one ? 1 : 0) {}

  std::uint8_t zero_at(std::int64_t row, std::int64_t group) const override {
    const int bits = format().bits;
    // 0 is kept as the highest code.
    const int zero = code_at(zeros_, group * zeros_.shape()[1], row, bits) + less_;
    return static_cast<std::uint8_t>(zero & ((1 << bits) - 1));
  }

 private:
  void decode(Tile& tile) const override {
    const int bits = format().bits;
    const std::int64_t rows = tile.rows, stride = tile.stride, count = words_.shape()[0];
    for (std::int64_t w = 0; w < count; ++w) {
      std::uint8_t* to = tile.codes.data() + w * (32 / bits);
      for (std::int64_t j = 0; j < rows; ++j, to += stride) {
        const std::uint32_t word = word_at(words_, w * outputs() + tile.first + j);
        if (bits == 8) {
          std::memcpy(to, &word, sizeof word);
        } else {
          const std::uint64_t eight = spread(word);
          std::memcpy(to, &eight, sizeof eight);
        }
      }
    }
  }

  Tensor zeros_;
  int less_;
};

// A file that says "sym" has zeros too: all of them the middle.
void check_symmetric(const ImportedModule& module, const GptqRows& rows) {
  for (std::int64_t g = 0; g < module.groups(); ++g) {
    for (std::int64_t row = 0; row < module.outputs; ++row) {
      const int zero = rows.zero_at(row, g);
      if (zero == module.format.middle()) continue;
      throw ValueError(concat(quoted(module.name_of("qzeros")), ": expected a zero of ",
                              module.format.middle(), " everywhere beside \"sym\": true, found ",
                              zero, " for output ", row, " in group ", g,
                              " (is \"checkpoint_format\" right?)"));
    }
  }
}

}  // namespace

std::unique_ptr<QuantizedRows> open_gptq(ImportedModule module) {
  check_scales(module, "scales");
  std::vector<std::int32_t> order;
  if (module.tensors.contains("g_idx")) order = order_of(module, "g_idx");
  auto rows = std::make_unique<GptqRows>(module, std::move(order));
  if (!module.format.zeros) check_symmetric(module, *rows);
  return rows;
}

}  // namespace infinilm
