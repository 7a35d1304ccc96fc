// Matrices in device memory, in the layouts of weight_layout.hpp.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cuda/context.hpp"
#include "cuda/weight_layout.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

// Of rows of float32, float16 or bfloat16; ValueError for others.
Layout layout_of(DataType dtype);

class CudaWeight final : public Weight {
 public:
  // As Ops::pack. Rows go over in runs, through pinned memory. The context is in use only while a run is sent: `packed` is called
  // without.
  CudaWeight(std::shared_ptr<Context> context, std::span<const Tensor> parts, DataType compute,
             const PartPacked& packed);
  // As Ops::pack_quantized.
  CudaWeight(std::shared_ptr<Context> context, std::span<const QuantizedRows* const> parts,
             DataType compute, const RowsPacked& packed);
  ~CudaWeight() override;

  // What a device's operations get back of what it has packed.
  static const CudaWeight& of(const Weight& weight) {
    return static_cast<const CudaWeight&>(weight);
  }

  // As Ops::packed_bytes.
  static std::size_t nbytes_of(std::span<const std::int64_t> outputs, std::int64_t inputs,
                               DataType kept, const QuantFormat& quant);

  std::int64_t inputs() const override { return inputs_; }
  std::size_t parts() const override { return parts_.size(); }
  std::int64_t outputs(std::size_t part) const override { return parts_[part].outputs; }
  DataType dtype() const override;
  const QuantFormat& quant() const override { return quant_; }
  std::span<const std::int32_t> input_order() const override { return input_order_; }
  std::size_t nbytes() const override { return nbytes_; }

  Layout layout() const noexcept { return layout_; }
  // What x is rounded to (F32: not at all).
  DataType compute() const noexcept { return compute_; }
  const MatrixView& view(std::size_t part) const noexcept { return parts_[part]; }
  // input_order() in device memory; null if inputs are in order.
  const std::int32_t* order() const noexcept { return order_; }

  Tensor unpack(std::size_t part) const;
  QuantizedMatrix unpack_quantized(std::size_t part) const;

 private:
  void settle();
  // Places for the parts and the order, and the memory.
  void allocate(std::span<const std::int64_t> outputs);
  void upload_order();
  void upload(const Tensor& source, std::size_t part, const PartPacked& packed);
  void upload(const QuantizedRows& source, std::size_t part, const RowsPacked& packed);

  std::shared_ptr<Context> context_;
  std::int64_t inputs_ = 0;
  Layout layout_ = Layout::F32;
  QuantFormat quant_;
  DataType compute_ = DataType::F32;
  std::vector<std::int32_t> input_order_;
  const std::int32_t* order_ = nullptr;
  std::byte* memory_ = nullptr;
  std::size_t nbytes_ = 0;
  std::vector<MatrixView> parts_;
};

// Rows [begin, begin + count) of a matrix as contiguous rows of `stride` elements, F32, BF16 or F16 (whole 16 bytes a row), zeros
// behind the columns; quantised ones scaled.
void widen_rows(Context& context, const MatrixView& matrix, std::int64_t begin, std::int64_t count,
                DataType type, void* to, std::int64_t stride);
// y[t] = row ids[t] of a matrix, its columns where `order` has them if that is not null; both in device memory.
void widen_rows(Context& context, const MatrixView& matrix, const std::int32_t* order,
                const std::int64_t* ids, Matrix y);

}  // namespace infinilm::cuda
