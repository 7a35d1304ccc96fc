// Row by row: norms, activations, sums, rotations, softmax, copies. Matrices are float32 in device memory.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/choices.hpp"
#include "cuda/context.hpp"
#include "cuda/sequences.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

// y = x / sqrt(mean(x^2) + eps) * w; y may be null. `rounded`, if not null, gets it as `type` (BF16, F16), `rounded_stride` elements
// from row to row, with zeros behind the columns.
void rms_norm(Context& context, Matrix x, const float* w, float eps, Matrix y,
              std::uint16_t* rounded = nullptr, std::int64_t rounded_stride = 0,
              DataType type = DataType::BF16);
// x as `type` (BF16, F16), with zeros behind the columns.
void round_rows(Context& context, Matrix x, std::uint16_t* rounded, std::int64_t stride,
                DataType type);
// Gate and up [rows, cols] of act(gate) * up: float32 or bfloat16, strides in elements.
struct GateUp {
  const void *gate, *up;
  std::int64_t gate_stride, up_stride;
  std::int64_t rows, cols;
  DataType type;
};
GateUp gate_up_of(const Matrix& gate, const Matrix& up);
void act_mul(Context& context, const GateUp& from, HiddenAct act, Matrix y);
// As rms_norm: y may be null, `rounded` gets it as `type`.
void act_mul(Context& context, const GateUp& from, HiddenAct act, Matrix y, std::uint16_t* rounded,
             std::int64_t stride, DataType type);
void add(Context& context, Matrix x, Matrix y);
void add_bias(Context& context, const float* bias, Matrix y);
void copy(Context& context, Matrix from, Matrix to);
// Each of `from` to its place in `to`.
void copy_each(Context& context, std::span<const Matrix> from, std::span<const Matrix> to);
// to[r, k] = from[r, order[k]]; the order in device memory.
void gather_columns(Context& context, Matrix from, const std::int32_t* order, Matrix to);
void rope(Context& context, Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin);
void softmax(Context& context, Matrix x);
// As Ops::argmax; `scratch` has argmax_bytes of device memory. Without found.columns, rows only.
std::size_t argmax_bytes(std::int64_t rows);
void argmax(Context& context, Matrix x, std::byte* scratch, Found found);

}  // namespace infinilm::cuda
