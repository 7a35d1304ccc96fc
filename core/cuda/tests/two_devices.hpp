// A CUDA device and the CPU, side by side: numbers on both, and what an operation makes of them compared.
//
// Built twice: with the kernels emulated, which runs anywhere, and as they are, for a machine that has a device. There,
// INFINILM_CUBLASLT=off leaves large products to own kernels. INFINILM_TEST_QUICK leaves out what only repeats: for sanitizers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/ops_cpu.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

namespace cuda_tests {

using namespace infinilm;

constexpr DataType kF32 = DataType::F32, kBf16 = DataType::BF16, kF16 = DataType::F16;

using infinilm_test::Floats;
using infinilm_test::numbers;

bool is_quick();
Ops& device();
cpu::OpsCpu& host();

Floats nothing(std::int64_t count);  // NaN
float rounded(float x, DataType type);
Floats rounded(Floats values, DataType type);

// A matrix on either device, read back at the end. `gap`: columns between its rows that nobody may write to.
class Numbers {
 public:
  Numbers(Ops& ops, const Floats& values, std::int64_t cols, std::int64_t gap = 0)
      : ops_(ops), cols_(cols), stride_(cols + gap) {
    rows_ = cols == 0 ? 0 : static_cast<std::int64_t>(values.size()) / cols;
    Floats padded(static_cast<std::size_t>(rows_ * stride_) + 16, kGap);
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::copy_n(values.begin() + r * cols_, cols_, padded.begin() + r * stride_);
    }
    memory_ = ops.allocate(padded.size() * 4);
    ops.upload(padded.data(), memory_->data(), padded.size() * 4);
  }
  Matrix matrix() const { return {data(), rows_, cols_, stride_}; }
  float* data() const { return reinterpret_cast<float*>(memory_->data()); }
  Floats read() const {
    Floats padded(memory_->nbytes() / 4);
    ops_.download(memory_->data(), padded.data(), padded.size() * 4);
    Floats values;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(padded.size()); ++i) {
      const bool inside = i < rows_ * stride_ && i % stride_ < cols_;
      const float value = padded[static_cast<std::size_t>(i)];
      if (inside) {
        values.push_back(value);
      } else {
        CHECK(value == kGap);
      }
    }
    return values;
  }

 private:
  static constexpr float kGap = 12345.0f;
  Ops& ops_;
  std::int64_t rows_ = 0, cols_, stride_;
  std::shared_ptr<Buffer> memory_;
};

// To `tolerance` of the largest; NaN is never close. Says where it is not.
bool is_close(const Floats& found, const Floats& expected, float tolerance,
              const std::string& what);

// What `run(ops, y)` writes to y, on the CPU and on the device.
template <class Run>
bool agree(const Floats& start, std::int64_t cols, std::int64_t gap, float tolerance,
           const std::string& what, Run run) {
  const Numbers expected(host(), start, cols), found(device(), start, cols, gap);
  run(static_cast<Ops&>(host()), expected.matrix());
  run(device(), found.matrix());
  return is_close(found.read(), expected.read(), tolerance, what);
}

}  // namespace cuda_tests
