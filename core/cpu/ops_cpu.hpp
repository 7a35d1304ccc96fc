// The Ops of the CPU: cuts each operation into chunks for the pool and calls the kernels.
#pragma once

#include <memory>

#include "cpu/kernels.hpp"
#include "cpu/memory.hpp"
#include "cpu/weight.hpp"
#include "ops/ops.hpp"

namespace infinilm::cpu {

class OpsCpu final : public Ops {
 public:
  explicit OpsCpu(const Kernels& kernels) : kernels_(kernels) {}

  Device device() const override { return Device(); }
  std::shared_ptr<Buffer> allocate(std::size_t nbytes) override { return host_memory(nbytes); }
  void upload(const void* host, void* to, std::size_t nbytes) override;
  void download(const void* from, void* host, std::size_t nbytes) override;
  void copy_bytes(const void* from, void* to, std::size_t nbytes) override;
  void synchronize() override {}  // nothing runs on after a call
  bool can_compute(DataType dtype) const override;

  std::unique_ptr<Weight> pack(std::span<const Tensor> parts, DataType compute,
                               const PartPacked& packed) override;
  std::unique_ptr<Weight> pack_quantized(std::span<const QuantizedRows* const> parts,
                                         DataType compute, bool int8_activations,
                                         const RowsPacked& packed) override;
  std::size_t packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                           DataType kept, const QuantFormat& quant) const override;
  QuantizedMatrix unpack_quantized(const Weight& weight, std::size_t part) override;
  Tensor unpack(const Weight& weight, std::size_t part) override;

  void embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) override;
  void rms_norm(Matrix x, const float* w, float eps, Matrix y) override;
  void linear(Matrix x, const Weight& w, std::span<const float* const> bias,
              std::span<const Matrix> y, const std::optional<Matrix>& residual) override;
  void linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                      HiddenAct act, Matrix y) override;
  void act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) override;
  void add(Matrix x, Matrix y) override;
  void rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) override;

  std::size_t kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                             DataType dtype) const override;
  void kv_write(Matrix k, Matrix v, std::span<const SequenceRows> sequences,
                const AttentionShape& shape) override;
  void attention(Matrix q, std::span<const SequenceRows> sequences, const AttentionShape& shape,
                 Matrix y) override;
  void attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                        const AttentionShape& shape, float* scores, std::int64_t keys) override;
  void softmax(Matrix x) override;
  void attention_mix(const float* weights, std::int64_t keys,
                     std::span<const SequenceRows> sequences, const AttentionShape& shape,
                     Matrix y) override;

  void copy(Matrix from, Matrix to) override;
  std::unique_ptr<DeviceLimits> limits(std::size_t nbytes) override;
  std::unique_ptr<Choice> argmax(Matrix x) override;
  void log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                         std::span<float> found) override;
  void penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) override;

 private:
  const Kernels& kernels_;
};

}  // namespace infinilm::cpu
