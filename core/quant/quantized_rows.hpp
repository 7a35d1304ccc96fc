// Where a quantised matrix comes from: row by row, so that none is ever held twice.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "infinilm/quantization.hpp"
#include "infinilm/tensor.hpp"
#include "quant/quant_format.hpp"

namespace infinilm {

class QuantizedRows {
 public:
  virtual ~QuantizedRows() = default;
  virtual std::int64_t outputs() const = 0;
  virtual std::int64_t inputs() const = 0;
  virtual const QuantFormat& format() const = 0;
  // Which input each code of a row belongs to, where they are kept in another order (groups are of neighbouring codes); else
  // empty.
  virtual std::span<const std::int32_t> input_order() const { return {}; }
  // One row: a code for each input, a scale (representable as float16) for each group, and a zero if the format has them.
  // Called from several threads at once; does not throw.
  virtual void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
                    std::span<std::uint8_t> zeros) const noexcept = 0;
};

// A whole matrix of what QuantizedRows gives by the row, for saving and for tests.
struct QuantizedMatrix {
  QuantFormat format;
  Tensor codes;   // U8 [outputs, inputs]
  Tensor scales;  // F32 [outputs, groups]
  Tensor zeros;   // U8 [outputs, groups]; the format's middle everywhere if it has none of its own
  std::vector<std::int32_t> input_order;  // as of QuantizedRows
};

// Which order the inputs of matrices that share them are kept in; ValueError if it is not one for all.
std::span<const std::int32_t> common_order(std::span<const QuantizedRows* const> parts);

// The format that linear layers with so many inputs get.
QuantFormat format_of(const Quantization& quantization, std::int64_t inputs);

// Rounds a matrix (F32, F16, BF16, contiguous) as it is read. 8 bits: the largest magnitude of a group becomes code 1 or
// 255. 4 bits: of a few scales near the one that makes the largest magnitude code 0, the one with the least squared error.
// A group with a value that is not finite, or with one that is too large for a float16 scale, becomes NaN.
std::unique_ptr<QuantizedRows> quantize(const Tensor& matrix, const QuantFormat& format);

}  // namespace infinilm
