// Matrices in the layout of the kernels: panels of `nr` outputs, see kernels.hpp.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cpu/kernels.hpp"
#include "infinilm/tensor.hpp"
#include "ops/ops.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm::cpu {

class PackedWeight final : public Weight {
 public:
  // As Ops::pack.
  PackedWeight(const Kernels& kernels, std::span<const Tensor> parts, DataType compute,
               const PartPacked& packed);
  // As Ops::pack_quantized.
  PackedWeight(const Kernels& kernels, std::span<const QuantizedRows* const> parts,
               DataType compute, bool int8_activations, const RowsPacked& packed);

  // As Ops::packed_bytes.
  static std::size_t nbytes_of(const Kernels& kernels, std::span<const std::int64_t> outputs,
                               std::int64_t inputs, DataType kept, const QuantFormat& quant);

  std::int64_t inputs() const override { return inputs_; }
  std::size_t parts() const override { return parts_.size(); }
  std::int64_t outputs(std::size_t part) const override { return parts_[part].outputs; }
  DataType dtype() const override;
  const QuantFormat& quant() const override { return quant_; }
  std::span<const std::int32_t> input_order() const override { return input_order_; }
  std::size_t nbytes() const override { return memory_->nbytes(); }

  Format format() const noexcept { return format_; }
  // Signed bytes of each value of x where it is multiplied as integers.
  int planes() const noexcept { return int8_activations_ ? 1 : round_bf16_ ? 2 : 3; }
  bool int8_activations() const noexcept { return int8_activations_; }
  // x is to be rounded to bfloat16.
  bool round_bf16() const noexcept { return round_bf16_ && !int8_activations_; }
  std::int64_t panels(std::size_t part) const noexcept;
  const std::byte* panel(std::size_t part, std::int64_t index) const noexcept;
  // All rows of one part as they are kept; quantised ones as float32.
  Tensor unpack(std::size_t part) const;
  QuantizedMatrix unpack_quantized(std::size_t part) const;
  // One row in float32.
  void widen_row(std::size_t part, std::int64_t row, float* out) const;

 private:
  struct Part {
    std::int64_t outputs = 0;
    std::int64_t first_panel = 0;
  };
  // The panels [begin, end) of a part.
  void pack(const Tensor& source, const Part& part, std::int64_t begin, std::int64_t end);

  // Places for the parts, and the memory.
  void lay_out(std::span<const std::int64_t> outputs);
  void pack(const QuantizedRows& source, const Part& part, std::int64_t begin, std::int64_t end);

  const Kernels& kernels_;
  std::int64_t inputs_ = 0;
  Format format_ = Format::F32;
  QuantFormat quant_;
  bool round_bf16_ = false;
  bool int8_activations_ = false;
  std::vector<std::int32_t> input_order_;
  std::size_t panel_bytes_ = 0;
  std::vector<Part> parts_;
  std::shared_ptr<Buffer> memory_;
};

}  // namespace infinilm::cpu
