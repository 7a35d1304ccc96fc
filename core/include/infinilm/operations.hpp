// The engine's operations one by one, on tensors: what the tests check against float64 NumPy and what
// benchmarks/ times. They run the same kernels as the model. All float tensors are float32, except weights (F32, F16,
// BF16); they are copied to `device` where they are elsewhere, and results are there. Wrong shapes or dtypes are a ValueError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/quantization.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {
class Ops;
class Weight;
}  // namespace infinilm

namespace infinilm::operations {

/// y [T, H] = table[ids]; ids: [T], table: [V, H]. IndexError for an id outside of the table.
Tensor embed(const TokenIds& ids, const Tensor& table, const std::string& device = "cpu");
/// y [T, H] = x / sqrt(mean(x^2) + eps) * weight
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps,
                const std::string& device = "cpu");
/// A linear layer's weight in the device's layout, to be used many times.
class PackedLinear {
 public:
  /// weights: matrices [N_p, K] stacked; compute: F32 or BF16, on CUDA also F16. `quantization`: rounds them first.
  PackedLinear(const std::vector<Tensor>& weights, DataType compute,
               const std::string& device = "cpu", const Quantization& quantization = {});
  /// One [T, N_p] for each part. bias: empty or one [N_p] for each part.
  std::vector<Tensor> apply(const Tensor& x, const std::vector<Tensor>& bias) const;
  /// residual + x W^T + b, fused. One part.
  Tensor apply_residual(const Tensor& x, const std::vector<Tensor>& bias,
                        const Tensor& residual) const;
  /// act(x W_0^T + b_0) * (x W_1^T + b_1), fused. Two parts.
  Tensor apply_act_mul(const Tensor& x, const std::vector<Tensor>& bias,
                       const std::string& act) const;
  /// The matrix again; of quantised ones what they stand for, F32.
  Tensor unpack(std::size_t part) const;
  std::size_t nbytes() const;

 private:
  std::shared_ptr<Ops> ops_;
  std::shared_ptr<const Weight> weight_;
};
Tensor act_mul(const Tensor& gate, const Tensor& up, const std::string& act,
               const std::string& device = "cpu");
Tensor add(const Tensor& x, const Tensor& y, const std::string& device = "cpu");
/// x: [T, heads, D]; cos, sin: [T, D/2].
Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin,
            const std::string& device = "cpu");
Tensor softmax(const Tensor& x, const std::string& device = "cpu");
/// Attention of ragged sequences: the last `rows[i]` of the `lengths[i]` tokens of sequence i are queries.
/// q: [sum rows, A, D]; k, v: [sum lengths, K, D] -> [sum rows, A, D]. `fused` false: by scores, softmax, mix.
/// `kv_dtype`: what the cache rounds k and v to, F32, BF16 or I8.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& lengths,
                 std::int64_t window, double scale, bool fused, DataType kv_dtype,
                 const std::string& device = "cpu");
/// [A, sum rows, longest length], scaled and masked with -inf.
Tensor attention_scores(const Tensor& q, const Tensor& k, const std::vector<std::int64_t>& rows,
                        const std::vector<std::int64_t>& lengths, std::int64_t window, double scale,
                        DataType kv_dtype, const std::string& device = "cpu");

}  // namespace infinilm::operations
