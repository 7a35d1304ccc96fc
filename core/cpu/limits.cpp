#include "ops/device_limits.hpp"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/memory.hpp"
#include "cpu/ops_cpu.hpp"
#include "cpu/pool.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cpu {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 20;  // that a thread reads at a time
constexpr int kTries = 3;                               // a limit is what was reached at best

template <class Work>
double seconds_of(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Operations a second of all threads; chunks are dealt out as those of the engine's own loops are.
double rate_of(const PeakLoop& loop) {
  constexpr std::int64_t kRounds = 4000, kChunksPerThread = 100;
  const std::int64_t chunks = kChunksPerThread * pool_threads();
  const double seconds = seconds_of([&] {
    parallel_for(chunks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) loop.run(kRounds);
    });
  });
  return static_cast<double>(loop.operations * kRounds * chunks) / seconds;
}

// The loops that can multiply numbers of this format, wider ones included.
std::vector<PeakLoop> loops_of(DataType dtype) {
  const auto& [read, f32, bf16, tiles_bf16, int8, tiles_int8] = kernels().limits;
  if (dtype == DataType::F32) return {f32};
  if (dtype == DataType::BF16) return {f32, bf16, tiles_bf16};
  check(dtype == DataType::I8, "expected float32, bfloat16 or int8, found ", name_of(dtype));
  return {f32, bf16, tiles_bf16, int8, tiles_int8};
}

class CpuLimits final : public DeviceLimits {
 public:
  explicit CpuLimits(std::size_t nbytes) : buffer_(host_memory(nbytes / kPiece * kPiece)) {
    // Written to, since untouched memory is one page of zeros, read from the cache.
    std::memset(buffer_->data(), 1, buffer_->nbytes());
  }

  double read_gbs() override {
    const auto* data = static_cast<const std::byte*>(buffer_->data());
    const auto pieces = static_cast<std::int64_t>(buffer_->nbytes()) / kPiece;
    const double seconds = seconds_of([&] {
      parallel_for(pieces, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) kernels().limits.read(data + i * kPiece, kPiece);
      });
    });
    return 1e-9 * static_cast<double>(buffer_->nbytes()) / seconds;
  }

  Peak peak(DataType dtype) override {
    Peak best;
    for (const PeakLoop& loop : loops_of(dtype)) {
      for (int i = 0; loop.instruction && i < kTries; ++i) {
        const double gflops = 1e-9 * rate_of(loop);
        if (gflops > best.gflops) best = {loop.instruction, gflops};
      }
    }
    return best;
  }

 private:
  std::shared_ptr<Buffer> buffer_;
};

}  // namespace

std::unique_ptr<DeviceLimits> OpsCpu::limits(std::size_t nbytes) {
  return std::make_unique<CpuLimits>(nbytes);
}

}  // namespace infinilm::cpu
