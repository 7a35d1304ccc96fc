// Rows of a matrix whose file keeps it input by input: a tile of neighbouring rows is decoded at a time, by the thread that
// reads them, and kept for the next one.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/import_module.hpp"

namespace infinilm {

class ColumnRows : public QuantizedRows {
 public:
  ColumnRows(const ImportedModule& module, std::vector<std::int32_t> order);

  std::int64_t outputs() const override { return outputs_; }
  std::int64_t inputs() const override { return inputs_; }
  const QuantFormat& format() const override { return format_; }
  std::span<const std::int32_t> input_order() const override { return order_; }
  void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t> zeros) const noexcept override;

 protected:
  // A multiple of the outputs in a word of AWQ; a few cache lines of GPTQ.
  static constexpr std::int64_t kTileRows = 32;

  // Rows [first, first + rows): codes of a row `stride` bytes after those of the one before, scales and zeros of a row
  // together.
  struct Tile {
    std::int64_t first = 0;
    std::int64_t rows = 0;
    std::int64_t stride = 0;
    std::vector<std::uint8_t> codes;
    std::vector<float> scales;
    std::vector<std::uint8_t> zeros;
  };
  virtual void decode(Tile& tile) const = 0;
  virtual std::uint8_t zero_at(std::int64_t row, std::int64_t group) const = 0;

  const Tensor words_;

 private:
  void fill(Tile& tile, std::int64_t first) const;

  std::int64_t outputs_, inputs_;
  QuantFormat format_;
  Tensor scales_;
  std::vector<std::int32_t> order_;
  std::uint64_t id_;
};

}  // namespace infinilm
