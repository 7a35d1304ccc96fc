#include "cuda/tests/two_devices.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/half.hpp"
#include "cpu/kernels.hpp"

#include "cuda/ops_cuda.hpp"
#if !defined(INFINILM_CUDA_EMULATED)
#include "cuda/cublaslt.hpp"
#endif

namespace cuda_tests {
namespace {

std::unique_ptr<cuda::OpsCuda> open_device() {
  auto ops = std::make_unique<cuda::OpsCuda>(0);
#if !defined(INFINILM_CUDA_EMULATED)
  ops->synchronize();  // its device is this thread's before the library asks for it
  const char* library = std::getenv("INFINILM_CUBLASLT");
  if (library == nullptr || std::string(library) != "off") ops->use(cuda::make_cublaslt());
#endif
  return ops;
}

}  // namespace

bool is_quick() { return std::getenv("INFINILM_TEST_QUICK") != nullptr; }

Ops& device() {
  static const std::unique_ptr<cuda::OpsCuda> ops = open_device();
  return *ops;
}

cpu::OpsCpu& host() {
  static cpu::OpsCpu ops(cpu::kernels());
  return ops;
}

Floats nothing(std::int64_t count) {
  return Floats(static_cast<std::size_t>(count), std::nanf(""));
}

bool is_close(const Floats& found, const Floats& expected, float tolerance,
              const std::string& what) {
  float largest = 0.0f;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  std::size_t wrong = 0, first = 0;
  float worst = 0.0f;
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    const float error = std::abs(found[i] - expected[i]);
    if (error <= tolerance * largest || (std::isinf(found[i]) && found[i] == expected[i])) continue;
    if (wrong++ == 0) first = i;
    worst = std::max(worst, std::isnan(error) ? INFINITY : error / largest);
  }
  if (wrong == 0 && found.size() == expected.size()) return true;
  std::cerr << what << ": " << wrong << " of " << expected.size() << " wrong (found "
            << found.size() << "), the first at " << first << ": " << found[first] << " for "
            << expected[first] << ", worst " << worst << " of the largest, allowed " << tolerance
            << '\n';
  return false;
}

float rounded(float x, DataType type) {
  if (type == DataType::F16) return from_f16(to_f16(x));
  if (type == DataType::F32) return x;
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  u = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
  std::memcpy(&x, &u, sizeof u);
  return x;
}

Floats rounded(Floats values, DataType type) {
  for (float& x : values) x = rounded(x, type);
  return values;
}

}  // namespace cuda_tests
