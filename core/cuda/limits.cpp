// What the device does at best: a copy, and a large product by whoever multiplies prompts.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>

#include "cuda/ops_cuda.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr int kTries = 3;                                 // a limit is what was reached at best
constexpr double kLeastSeconds = 0.01;                    // of a try
constexpr std::size_t kPattern = std::size_t{1} << 20;    // bytes
constexpr std::size_t kMostBytes = std::size_t{1} << 29;  // more is beyond all caches, too
#if defined(INFINILM_CUDA_EMULATED)
constexpr std::int64_t kSize = 64, kFloatSize = 64;
#else
constexpr std::int64_t kSize = 8192, kFloatSize = 4096;
#endif

// A second, of what is asked for again and again.
double rate_of(Ops& ops, const std::function<void()>& ask) {
  const auto seconds_of = [&](int times) {
    ops.synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < times; ++i) ask();
    ops.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  ask();  // the first one finds memory and the fastest kernel
  const double once = std::max(seconds_of(1), 1e-6);
  const int times = static_cast<int>(std::clamp(kLeastSeconds / once, 1.0, 1000.0));
  double best = once;
  for (int i = 0; i < kTries; ++i) best = std::min(best, seconds_of(times) / times);
  return 1 / best;
}

// Numbers of either sign between 0.5 and 1: how fast a product is depends on how many bits change.
std::vector<std::uint32_t> numbers_of(DataType dtype, std::size_t nbytes) {
  const bool is_f32 = dtype == DataType::F32, is_f16 = dtype == DataType::F16;
  const std::uint32_t half_changes = is_f16 ? 0x83ff : 0x807f, half = is_f16 ? 0x3800 : 0x3f00;
  const std::uint32_t changes = is_f32 ? 0x807fffff : half_changes << 16 | half_changes;
  const std::uint32_t stays = is_f32 ? 0x3f000000 : half << 16 | half;
  std::mt19937 engine(1);
  std::vector<std::uint32_t> words(std::min(nbytes, kPattern) / 4);
  for (std::uint32_t& word : words) word = (static_cast<std::uint32_t>(engine()) & changes) | stays;
  return words;
}

// By less where the model leaves no room for so much.
template <class Size, class Measure>
auto with_room(Size size, Size least, Measure measure) {
  for (;; size /= 2) {
    try {
      return measure(size);
    } catch (const OutOfMemory&) {
      if (size / 2 < least) throw;
    }
  }
}

class CudaLimits final : public DeviceLimits {
 public:
  // c = a b^T of `size` rows and columns each.
  using Multiply =
      std::function<void(DataType, std::int64_t size, const void* a, const void* b, float* c)>;

  CudaLimits(Ops& ops, std::size_t nbytes, std::string name, Multiply multiply)
      : ops_(ops),
        nbytes_(std::min(nbytes, kMostBytes)),
        name_(std::move(name)),
        multiply_(std::move(multiply)) {}

  double read_gbs() override {
    return with_room(nbytes_, std::size_t{1} << 20, [&](std::size_t nbytes) {
      const auto from = ops_.allocate(nbytes), to = ops_.allocate(nbytes);
      const double rate = rate_of(ops_, [&] { ops_.copy_bytes(from->data(), to->data(), nbytes); });
      return 2e-9 * static_cast<double>(nbytes) * rate;
    });
  }

  Peak peak(DataType dtype) override {
    check(dtype == DataType::F32 || dtype == DataType::BF16 || dtype == DataType::F16,
          "expected float32, bfloat16 or float16 on ", ops_.device().str(), ", found ",
          name_of(dtype));
    return with_room(dtype == DataType::F32 ? kFloatSize : kSize, std::int64_t{256},
                     [&](std::int64_t size) { return peak_of(dtype, size); });
  }

 private:
  Peak peak_of(DataType dtype, std::int64_t size) {
    const auto count = static_cast<std::size_t>(size * size);
    const std::size_t nbytes = count * size_of(dtype);
    const auto a = ops_.allocate(nbytes), b = ops_.allocate(nbytes), c = ops_.allocate(count * 4);
    const std::vector<std::uint32_t> numbers = numbers_of(dtype, nbytes);
    std::size_t filled = numbers.size() * 4;
    ops_.upload(numbers.data(), a->data(), filled);
    for (; filled < nbytes; filled *= 2) {
      ops_.copy_bytes(a->data(), a->data() + filled, std::min(filled, nbytes - filled));
    }
    ops_.copy_bytes(a->data(), b->data(), nbytes);
    const double rate = rate_of(ops_, [&] {
      multiply_(dtype, size, a->data(), b->data(), reinterpret_cast<float*>(c->data()));
    });
    return {concat(name_, " of ", size), 2e-9 * static_cast<double>(size * size * size) * rate};
  }

  Ops& ops_;
  std::size_t nbytes_;
  std::string name_;
  Multiply multiply_;
};

}  // namespace

std::unique_ptr<DeviceLimits> OpsCuda::limits(std::size_t nbytes) {
  const auto multiply = [this](DataType dtype, std::int64_t size, const void* a, const void* b,
                               float* c) {
    const Context::Use use(*context_);
    flush();
    const auto* x = static_cast<const float*>(a);  // looked at if it is that
    MatrixView w;
    w.layout = layout_of(dtype);
    w.inputs = w.outputs = static_cast<int>(size);
    w.row_bytes = size * static_cast<std::int64_t>(size_of(dtype));
    w.data = static_cast<const std::byte*>(b);
    multiply_dense({const_cast<float*>(x), size, size, size}, a, size, w, false, dtype, false,
                   {c, size, DataType::F32});
  };
  return std::make_unique<CudaLimits>(*this, nbytes, library_ ? "cuBLASLt product" : "own product",
                                      multiply);
}

}  // namespace infinilm::cuda
