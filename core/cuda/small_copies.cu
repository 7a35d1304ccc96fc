#include "cuda/small_copies.hpp"

#include "cuda/device.cuh"

namespace infinilm::cuda {
namespace {

constexpr unsigned kThreads = 256;
// Of a thread, all under way at once: each comes from the host's memory.
constexpr unsigned kWords = kSmallCopy / 4 / kThreads;

struct Words {
  const volatile unsigned* from;
  unsigned* to;
  unsigned count;
};
struct Transfers {
  Words list[kMostTransfers];
};

__global__ void __launch_bounds__(kThreads) copy_kernel(Transfers transfers) {
  let_next_start();
  wait_for_previous();
  unsigned words[kMostTransfers][kWords];
  const auto for_own = [&](auto use) {
#pragma unroll
    for (unsigned p = 0; p < kMostTransfers; ++p) {
#pragma unroll
      for (unsigned k = 0; k < kWords; ++k) {
        const unsigned i = threadIdx.x + k * kThreads;
        if (i < transfers.list[p].count) use(transfers.list[p], i, words[p][k]);
      }
    }
  };
  for_own([](const Words& transfer, unsigned i, unsigned& word) { word = transfer.from[i]; });
  for_own([](const Words& transfer, unsigned i, unsigned word) { transfer.to[i] = word; });
}

}  // namespace

void copy_small(Context& context, std::span<const Transfer> transfers) {
  Transfers all{};
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    all.list[i] = {static_cast<const unsigned*>(transfers[i].from),
                   static_cast<unsigned*>(transfers[i].to),
                   static_cast<unsigned>(transfers[i].nbytes / sizeof(unsigned))};
  }
  context.launch(copy_kernel, dim3(1), static_cast<int>(kThreads), 0, all);
}

}  // namespace infinilm::cuda
