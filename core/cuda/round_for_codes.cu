// x for products of quantised weights, where more rows come than each block of threads may as well round by itself.
#include "cuda/product.hpp"
#include "cuda/sums.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidest = 128;  // columns of a run

// Four columns a thread; zeros behind those of x.
template <int kRun>
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* x, std::int64_t x_stride, int columns, CodeRows to) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.x);
  const int column = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * 4;
  if (column >= to.stride) return;  // all of a warp, or none
  const float* row = x + r * x_stride;
  const auto one = [&](int k) { return k < columns ? row[k] : 0.0f; };
  const float v[4] = {one(column), one(column + 1), one(column + 2), one(column + 3)};
  unsigned halves[2];
  Note note;
  const bool keeps = scale_columns<kRun>(v, halves, note);
  *reinterpret_cast<uint2*>(to.x + r * to.stride + column) = {halves[0], halves[1]};
  if (keeps) to.notes[column / kRun * to.note_stride + r] = note;
}

std::int64_t padded(std::int64_t columns) { return (columns + kWidest - 1) / kWidest * kWidest; }
std::size_t bytes_of_x(const Matrix& x) {
  return static_cast<std::size_t>(x.rows * padded(x.cols)) * sizeof(std::uint16_t);
}

}  // namespace

std::size_t code_rows_bytes(const Matrix& x, int run) {
  return bytes_of_x(x) + static_cast<std::size_t>(x.rows * padded(x.cols) / run) * sizeof(Note);
}

CodeRows round_for_codes(Context& context, const Matrix& x, int run, std::byte* memory) {
  const std::int64_t stride = padded(x.cols);
  const CodeRows to = {reinterpret_cast<std::uint16_t*>(memory), stride,
                       reinterpret_cast<Note*>(memory + bytes_of_x(x)),
                       static_cast<int>(stride / run), static_cast<int>(x.rows)};
  const auto kernel = run == 32   ? round_kernel<32>
                      : run == 64 ? round_kernel<64>
                                  : round_kernel<128>;
  constexpr std::int64_t kPer = kThreads * 4;
  const dim3 grid(static_cast<unsigned>(x.rows), static_cast<unsigned>((stride + kPer - 1) / kPer));
  context.launch(kernel, grid, kThreads, 0, x.data, x.stride, static_cast<int>(x.cols), to);
  return to;
}

}  // namespace infinilm::cuda
