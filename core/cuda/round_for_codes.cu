// x for products of quantised weights, where more rows come than each block of threads may as well round by itself.
#include "cuda/digits.cuh"
#include "cuda/product.hpp"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 256;

// Eight columns a thread; zeros behind those of x.
template <Layout kLayout, int kRun>
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* x, std::int64_t x_stride, int columns, CodeRows to) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.x);
  const int column =
      (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * kOwn;
  if (column / (32 * kOwn) * (32 * kOwn) >= to.stride) return;  // all of a warp, or none
  const float* row = x + r * x_stride;
  float v[kOwn];
#pragma unroll
  for (int k = 0; k < kOwn; ++k) v[k] = column + k < columns ? row[column + k] : 0.0f;
  Digits digits;
  Note note;
  const bool keeps = take_digits<kLayout, unit_columns(kLayout), kRun>(v, digits, note);
  if (column >= to.stride) return;
  put_digits(to.x + r * to.stride, column, digits);
  if (keeps) to.notes[column / kRun * to.note_stride + r] = note;
}

std::int64_t padded(std::int64_t columns, const UnitLayout& layout) {
  return (columns + layout.columns - 1) / layout.columns * layout.columns;
}
std::size_t bytes_of_x(const Matrix& x, const UnitLayout& layout) {
  return static_cast<std::size_t>(x.rows * padded(x.cols, layout)) * sizeof(std::uint16_t);
}

template <Layout kLayout>
auto kernel_for(const UnitLayout& layout) {
  return layout.runs == 1 ? round_kernel<kLayout, unit_columns(kLayout)>
                          : round_kernel<kLayout, 32>;
}

}  // namespace

std::size_t code_rows_bytes(const Matrix& x, const UnitLayout& layout) {
  const std::int64_t notes = x.rows * padded(x.cols, layout) / layout.run_columns();
  return bytes_of_x(x, layout) + static_cast<std::size_t>(notes) * sizeof(Note);
}

CodeRows round_for_codes(Context& context, const Matrix& x, const MatrixView& weight,
                         std::byte* memory) {
  const UnitLayout& layout = weight.unit;
  const std::int64_t stride = padded(x.cols, layout);
  const CodeRows to = {reinterpret_cast<std::uint16_t*>(memory), stride,
                       reinterpret_cast<Note*>(memory + bytes_of_x(x, layout)),
                       static_cast<int>(stride / layout.run_columns()), static_cast<int>(x.rows)};
  const auto kernel =
      weight.layout == Layout::Q4 ? kernel_for<Layout::Q4>(layout) : kernel_for<Layout::Q8>(layout);
  constexpr std::int64_t kPer = kThreads * kOwn;
  const dim3 grid(static_cast<unsigned>(x.rows), static_cast<unsigned>((stride + kPer - 1) / kPer));
  context.launch(kernel, grid, kThreads, 0, x.data, x.stride, static_cast<int>(x.cols), to);
  return to;
}

}  // namespace infinilm::cuda
