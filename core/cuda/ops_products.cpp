// The products of OpsCuda: own kernels for few rows, and for more of quantised weights, the library for many, and what was put off before them done on the way.
#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "cuda/ops_cuda.hpp"
#include "cuda/rows.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// Up to so many rows, own kernels are faster for quantised weights than to write these out for a library.
constexpr std::int64_t kCodeRows = 128;
// Of a quantised matrix written out for a library, in rows by which its fastest kernels divide.
constexpr std::int64_t kSlabBytes = std::int64_t{1} << 26;
constexpr std::int64_t kSlabRows = 256;

bool overlap(const Matrix& a, const Matrix& b) {
  const auto end = [](const Matrix& m) { return m.data + (m.rows - 1) * m.stride + m.cols; };
  return a.rows > 0 && b.rows > 0 && std::less<>()(a.data, end(b)) && std::less<>()(b.data, end(a));
}

const float* bias_of(std::span<const float* const> bias, std::size_t part) {
  return bias.empty() ? nullptr : bias[part];
}

Matrix contiguous(std::byte* memory, std::int64_t rows, std::int64_t cols) {
  return {reinterpret_cast<float*>(memory), rows, cols, cols};
}

std::size_t float_bytes(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(rows * cols) * sizeof(float);
}

bool has_no_bias(std::span<const float* const> bias) {
  return std::ranges::all_of(bias, [](const float* b) { return b == nullptr; });
}

Results results_in(const Matrix& y) { return {y.data, y.stride, DataType::F32}; }

}  // namespace

Matrix OpsCuda::in_order_of(const CudaWeight& weight, Matrix x) {
  if (weight.order() == nullptr) return x;
  flush();
  const Matrix gathered =
      contiguous(scratch(gathered_, float_bytes(x.rows, x.cols)), x.rows, x.cols);
  cuda::gather_columns(*context_, x, weight.order(), gathered);
  return gathered;
}

bool OpsCuda::multiplies_itself(std::int64_t rows, const CudaWeight& weight) const {
  const bool takes_codes = weight.quant() && weight.compute() != DataType::F32;
  return library_ == nullptr || rows <= (takes_codes ? kCodeRows : kFewRows);
}

// x may be larger than float16 holds; a library would not be asked whether it is.
bool OpsCuda::needs_range(const CudaWeight& weight) const {
  return library_ == nullptr && weight.compute() == DataType::F16;
}

void OpsCuda::multiply_itself(Matrix x, const CudaWeight& weight,
                              std::span<const float* const> bias, std::span<const Matrix> y,
                              const std::optional<Matrix>& residual, int act) {
  x = in_order_of(weight, x);
  Product p;
  p.x = x.data;
  p.x_stride = x.stride;
  p.rows = static_cast<int>(x.rows);
  p.compute = weight.compute();
  if (residual) {
    p.residual = residual->data;
    p.residual_stride = residual->stride;
  }
  p.act = act;
  p.part_count = static_cast<int>(weight.parts());
  check<Error>(p.part_count <= kMostParts, "a weight of ", p.part_count,
               " parts: expected at most ", kMostParts, " on CUDA");
  for (std::size_t i = 0; i < weight.parts(); ++i) {
    const Matrix out = y[std::min(i, y.size() - 1)];  // one for both of act(gate) * up
    p.parts[i] = {weight.view(i), bias_of(bias, i), out.data, out.stride};
  }
  const std::optional<LeftDigits> left = std::exchange(left_digits_, std::nullopt);
  if (left && left->y == x && can_take_digits(p, left->by)) p.digits = left->digits;
  if (can_leave_digits(p)) {
    p.digits_of_y = digit_row(scratch(digits_, digit_row_bytes(y[0].cols)), y[0].cols);
  }
  const Norm* norm = norm_before(x);
  const auto changes = [&](const Matrix& m) {
    return std::any_of(y.begin(), y.end(), [&](const Matrix& out) { return overlap(out, m); });
  };
  if (norm != nullptr && x.rows <= kNormRows && turns_.empty() && !changes(norm->x)) {
    Product fused = p;
    fused.x = norm->x.data;
    fused.x_stride = norm->x.stride;
    fused.norm = norm->w;
    fused.eps = norm->eps;
    fused.normed = kept(x).data;
    fused.normed_stride = x.stride;
    if (can_normalise(*context_, fused)) {
      p = fused;
      norms_.clear();
    }
  }
  if (p.norm == nullptr && p.compute != DataType::F32 && x.rows > kNormRows) {
    if (weight.quant() && (x.rows <= kFewRows || needs_range(weight))) {
      round_for_codes(x, p);
    } else {
      p.rounded_stride = (x.cols + 7) / 8 * 8;
      p.rounded = static_cast<const std::uint16_t*>(prepare(x, weight, p.rounded_stride));
    }
  }
  flush();
  multiply(*context_, p, splits_);
  if (p.digits_of_y.x != nullptr) left_digits_ = {y[0], p.parts[0].matrix, p.digits_of_y};
}

void OpsCuda::round_for_codes(Matrix x, Product& p) {
  flush();
  const MatrixView& weight = p.parts[0].matrix;
  std::byte* memory = scratch(rounded_, code_rows_bytes(x, weight.unit));
  const CodeRows rows = cuda::round_for_codes(*context_, x, weight, memory);
  p.rounded = rows.x;
  p.rounded_stride = rows.stride;
  p.notes = rows.notes;
  p.runs = rows.runs;
  p.note_stride = rows.note_stride;
}

const void* OpsCuda::prepare(Matrix x, const CudaWeight& weight, std::int64_t stride) {
  if (weight.compute() == DataType::F32) {
    flush();
    return x.data;
  }
  const Norm* norm = norm_before(x);
  auto* rounded = reinterpret_cast<std::uint16_t*>(
      scratch(rounded_, static_cast<std::size_t>(x.rows * stride) * 2));
  if (norm != nullptr) {
    cuda::rms_norm(*context_, norm->x, norm->w, norm->eps, kept(x), rounded, stride,
                   weight.compute());
    norms_.clear();
  } else if (attention_ && attention_->y == x) {
    attention_->y = kept(x);
    attention_->rounded = rounded;
    attention_->rounded_stride = stride;
    attention_->rounded_type = weight.compute();
    flush_attention();
  } else if (act_mul_ && act_mul_->y == x) {
    const ActMul& a = *act_mul_;
    cuda::act_mul(*context_, a.from, a.act, kept(x), rounded, stride, weight.compute());
    act_mul_.reset();
  } else {
    flush();
    cuda::round_rows(*context_, x, rounded, stride, weight.compute());
  }
  return rounded;
}

bool OpsCuda::multiply_dense(Matrix x, const void* prepared, std::int64_t stride,
                             const MatrixView& w, bool is_new, DataType type, bool residual,
                             const Results& y) {
  const std::int64_t size = type == DataType::F32 ? 4 : 2;
  const bool done =
      library_ != nullptr &&
      library_->multiply(context_->stream(), type, x.rows, w.outputs, x.cols, prepared, stride,
                         w.data, w.row_bytes / size, residual ? 1.0f : 0.0f, y, {});
  if (done || y.type != DataType::F32) return done;
  auto* const floats = static_cast<float*>(y.data);
  Product p;
  p.x = x.data;
  p.x_stride = x.stride;
  p.rows = static_cast<int>(x.rows);
  p.compute = type;
  if (type != DataType::F32) {
    p.rounded = static_cast<const std::uint16_t*>(prepared);
    p.rounded_stride = stride;
  }
  p.are_weights_new = is_new;
  if (residual) {
    p.residual = floats;
    p.residual_stride = y.stride;
  }
  p.part_count = 1;
  p.parts[0] = {w, nullptr, floats, y.stride};
  multiply(*context_, p, splits_);
  return true;
}

bool OpsCuda::multiply_part(Matrix x, const void* prepared, std::int64_t stride,
                            const CudaWeight& weight, std::size_t part, bool residual,
                            const Results& y) {
  const MatrixView& w = weight.view(part);
  const DataType type = weight.compute();
  if (!weight.quant() && weight.dtype() == type) {
    return multiply_dense(x, prepared, stride, w, false, type, residual, y);
  }
  const std::int64_t size = type == DataType::F32 ? 4 : 2;
  MatrixView slab;
  slab.layout = layout_of(type);
  slab.inputs = w.inputs;
  slab.row_bytes = (x.cols + 7) / 8 * 8 * size;
  const std::int64_t most =
      std::max<std::int64_t>(1, kSlabBytes / (slab.row_bytes * kSlabRows)) * kSlabRows;
  const std::int64_t rows = std::min<std::int64_t>(most, w.outputs);
  std::byte* memory = scratch(slab_, static_cast<std::size_t>(rows * slab.row_bytes));
  slab.data = memory;
  for (std::int64_t begin = 0; begin < w.outputs; begin += most) {
    const std::int64_t count = std::min(most, w.outputs - begin);
    slab.outputs = static_cast<int>(count);
    widen_rows(*context_, w, begin, count, type, memory, slab.row_bytes / size);
    const auto item = static_cast<std::int64_t>(size_of(y.type));
    const Results some = {static_cast<std::byte*>(y.data) + begin * item, y.stride, y.type};
    if (!multiply_dense(x, prepared, stride, slab, true, type, residual, some)) return false;
  }
  return true;
}

bool OpsCuda::multiply_two(Matrix x, const void* prepared, std::int64_t stride,
                           const CudaWeight& weight, std::size_t first, const Results& y,
                           const Results& next) {
  const DataType type = weight.compute();
  if (library_ == nullptr || weight.quant() || weight.dtype() != type) return false;
  const MatrixView &a = weight.view(first), &b = weight.view(first + 1);
  if (a.outputs != b.outputs || a.row_bytes != b.row_bytes || y.stride != next.stride) return false;
  const auto size = static_cast<std::int64_t>(size_of(type));
  const auto item = static_cast<std::int64_t>(size_of(y.type));
  const auto bytes = [](const void* from, const void* to) {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) -
                                     reinterpret_cast<std::uintptr_t>(from));
  };
  const Repeated twice = {2, bytes(a.data, b.data) / size, bytes(y.data, next.data) / item};
  if (twice.b_step < 0 || twice.c_step < 0) return false;
  return library_->multiply(context_->stream(), type, x.rows, a.outputs, x.cols, prepared, stride,
                            a.data, a.row_bytes / size, 0.0f, y, twice);
}

void OpsCuda::multiply_parts(Matrix x, const void* prepared, std::int64_t stride,
                             const CudaWeight& weight, std::span<const Results> y) {
  for (std::size_t part = 0; part < weight.parts(); ++part) {
    if (part + 1 < weight.parts() &&
        multiply_two(x, prepared, stride, weight, part, y[part], y[part + 1])) {
      ++part;
      continue;
    }
    const Results& to = y[part];
    if (multiply_part(x, prepared, stride, weight, part, false, to)) continue;
    const std::int64_t cols = weight.outputs(part);
    const Matrix sum = contiguous(scratch(sum_, float_bytes(x.rows, cols)), x.rows, cols);
    multiply_part(x, prepared, stride, weight, part, false, results_in(sum));
    cuda::round_rows(*context_, sum, static_cast<std::uint16_t*>(to.data), to.stride, to.type);
  }
}

void OpsCuda::multiply_by_library(Matrix x, const CudaWeight& weight,
                                  std::span<const float* const> bias, std::span<const Matrix> y,
                                  const std::optional<Matrix>& residual) {
  x = in_order_of(weight, x);
  const std::int64_t stride = weight.compute() == DataType::F32 ? x.stride : (x.cols + 7) / 8 * 8;
  const void* prepared = prepare(x, weight, stride);
  flush();
  if (residual) {
    if (!(*residual == y[0])) cuda::copy(*context_, *residual, y[0]);
    const float* b = bias_of(bias, 0);
    const bool apart = b != nullptr;  // y + (x W^T + b): in the order of linear and add
    const Matrix out =
        apart ? contiguous(scratch(sum_, float_bytes(x.rows, y[0].cols)), x.rows, y[0].cols) : y[0];
    multiply_part(x, prepared, stride, weight, 0, !apart, results_in(out));
    if (!apart) return;
    add_bias(*context_, b, out);
    return cuda::add(*context_, out, y[0]);
  }
  std::vector<Results> results(y.size());
  std::ranges::transform(y, results.begin(), results_in);
  multiply_parts(x, prepared, stride, weight, results);
  for (std::size_t part = 0; part < weight.parts(); ++part) {
    if (const float* b = bias_of(bias, part)) add_bias(*context_, b, y[part]);
  }
}

void OpsCuda::multiply_rounded(Matrix x, const CudaWeight& weight, std::span<const Results> y) {
  x = in_order_of(weight, x);
  const std::int64_t stride = (x.cols + 7) / 8 * 8;
  const void* prepared = prepare(x, weight, stride);
  flush();
  multiply_parts(x, prepared, stride, weight, y);
}

void OpsCuda::linear(Matrix x, const Weight& w, std::span<const float* const> bias,
                     std::span<const Matrix> y, const std::optional<Matrix>& residual) {
  const Context::Use use(*context_);
  const LastUse last(*this);
  const CudaWeight& weight = CudaWeight::of(w);
  if (x.rows == 0) return;
  if (multiplies_itself(x.rows, weight)) {
    multiply_itself(x, weight, bias, y, residual, -1);
  } else {
    multiply_by_library(x, weight, bias, y, residual);
  }
}

void OpsCuda::linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                             HiddenAct act, Matrix y) {
  const Context::Use use(*context_);
  const LastUse last(*this);
  const CudaWeight& weight = CudaWeight::of(gate_up);
  if (x.rows == 0) return;
  if (x.rows <= kFewRows) {
    return multiply_itself(x, weight, bias, {&y, 1}, std::nullopt, static_cast<int>(act));
  }
  flush_act_mul();  // of which gate and up lie where these will
  // Half the bytes on their way to act(gate) * up, whose result is rounded so, too. Not to float16, which may be too small for them.
  if (weight.compute() == DataType::BF16 && has_no_bias(bias) &&
      !multiplies_itself(x.rows, weight)) {
    const std::int64_t stride = (y.cols + 7) / 8 * 8;
    // One behind the other: the library multiplies both at once.
    const std::int64_t each = x.rows * stride;
    auto* const memory =
        reinterpret_cast<std::uint16_t*>(scratch(gate_, float_bytes(x.rows, stride)));
    const std::array<Results, 2> parts = {
        {{memory, stride, DataType::BF16}, {memory + each, stride, DataType::BF16}}};
    multiply_rounded(x, weight, parts);
    act_mul_ = {{memory, memory + each, stride, stride, x.rows, y.cols, DataType::BF16}, act, y};
    return;
  }
  const std::size_t bytes = float_bytes(x.rows, y.cols);
  const std::array<Matrix, 2> parts = {contiguous(scratch(gate_, bytes), x.rows, y.cols),
                                       contiguous(scratch(up_, bytes), x.rows, y.cols)};
  linear(x, gate_up, bias, parts, std::nullopt);
  act_mul_ = {gate_up_of(parts[0], parts[1]), act, y};
}

}  // namespace infinilm::cuda
