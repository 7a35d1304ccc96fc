// Rows of a matrix in any layout, as float32 or 16-bit floats.
#include <algorithm>

#include "cuda/pieces.cuh"
#include "cuda/weight.hpp"

namespace infinilm::cuda {
namespace {

constexpr int kThreads = 256;

// Eight columns a thread.
__global__ void __launch_bounds__(kThreads)
    widen_kernel(MatrixView m, std::int64_t begin, DataType type, void* to, std::int64_t stride) {
  let_next_start();
  wait_for_previous();
  const auto piece = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const std::int64_t row = blockIdx.y;
  const std::int64_t column = static_cast<std::int64_t>(piece) * 8;
  if (column >= stride) return;
  const Eight e = column < m.inputs ? read_eight(m, begin + row, piece) : Eight{};
  if (type == DataType::F32) {
    float* y = static_cast<float*>(to) + row * stride + column;
    for (int i = 0; i < 8 && column + i < stride; ++i) y[i] = e.v[i];
    return;
  }
  const bool f16 = type == DataType::F16;
  auto* y = static_cast<std::uint16_t*>(to) + row * stride + column;
  const auto pair = [&](int i) {
    return f16 ? pack_half<true>(e.v[i], e.v[i + 1]) : pack_half<false>(e.v[i], e.v[i + 1]);
  };
  *reinterpret_cast<uint4*>(y) = make_uint4(pair(0), pair(2), pair(4), pair(6));
}

__global__ void __launch_bounds__(kThreads)
    embed_kernel(MatrixView m, const std::int32_t* order, const std::int64_t* ids, float* y,
                 std::int64_t stride) {
  let_next_start();
  wait_for_previous();
  const auto piece = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const std::int64_t row = blockIdx.y;
  if (piece * 8 >= m.inputs) return;
  const Eight e = read_eight(m, ids[row], piece);
  for (int i = 0; i < 8 && piece * 8 + i < m.inputs; ++i) {
    const int column = piece * 8 + i;
    y[row * stride + (order != nullptr ? order[column] : column)] = e.v[i];
  }
}

unsigned blocks_for(std::int64_t columns) {
  constexpr std::int64_t kColumns = kThreads * 8;
  return static_cast<unsigned>((columns + kColumns - 1) / kColumns);
}

constexpr std::int64_t kMostRows = 65535;  // of a grid's second dimension

}  // namespace

void widen_rows(Context& context, const MatrixView& matrix, std::int64_t begin, std::int64_t count,
                DataType type, void* to, std::int64_t stride) {
  const int size = type == DataType::F32 ? 4 : 2;
  for (std::int64_t first = 0; first < count; first += kMostRows) {
    const auto rows = static_cast<unsigned>(std::min(kMostRows, count - first));
    void* at = static_cast<std::byte*>(to) + first * stride * size;
    context.launch(widen_kernel, dim3(blocks_for(stride), rows), kThreads, 0, matrix, begin + first,
                   type, at, stride);
  }
}

void widen_rows(Context& context, const MatrixView& matrix, const std::int32_t* order,
                const std::int64_t* ids, Matrix y) {
  for (std::int64_t first = 0; first < y.rows; first += kMostRows) {
    const auto rows = static_cast<unsigned>(std::min(kMostRows, y.rows - first));
    context.launch(embed_kernel, dim3(blocks_for(y.cols), rows), kThreads, 0, matrix, order,
                   ids + first, y.row(first), y.stride);
  }
}

}  // namespace infinilm::cuda
