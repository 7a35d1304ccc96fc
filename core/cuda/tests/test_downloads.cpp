// Copies to the host that nobody waits for: their values, the memory that they lend, and order with others of the device.
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "cuda/ops_cuda.hpp"
#include "cuda/tests/two_devices.hpp"

using namespace cuda_tests;

// What was asked for later has the values of then, whatever is written to the device, and whoever has come and gone before.
TEST(downloads_that_nobody_waits_for) {
  Ops& ops = device();
  for (const std::int64_t count : {1, 3, 1000, 700000}) {
    const Numbers x(ops, numbers(count, 1), count);
    const auto bytes = static_cast<std::size_t>(count) * 4;
    std::vector<std::shared_ptr<Buffer>> kept;
    for (unsigned seed = 1; seed < 5; ++seed) {
      const Floats next = numbers(count, seed);
      ops.upload(next.data(), x.data(), bytes);
      kept.push_back(ops.download_later(x.data(), bytes));
      ops.download_later(x.data(), bytes).reset();  // its memory is lent again at once
      CHECK(kept.back()->is_pending());
      CHECK(reinterpret_cast<std::uintptr_t>(kept.back()->data()) % 64 == 0);
    }
    for (unsigned seed = 4; seed > 0; --seed) {
      Buffer& host = *kept[seed - 1];
      host.wait();
      CHECK(std::memcmp(host.data(), numbers(count, seed).data(), bytes) == 0);
      kept.pop_back();
      if (seed == 2) ops.give_back();
    }
  }
}

TEST(downloads_outlive_their_device) {
  std::shared_ptr<Buffer> host;
  const float value = 3;
  {
    const auto ops = std::make_unique<cuda::OpsCuda>(0);
    const auto there = ops->allocate(sizeof value);
    ops->upload(&value, there->data(), sizeof value);
    host = ops->download_later(there->data(), sizeof value);
    ops->download_later(there->data(), sizeof value).reset();
  }
  host->wait();
  CHECK(std::memcmp(host->data(), &value, sizeof value) == 0);
}

// A consumer on the default stream is made to wait for the copy; for others it is waited for.
TEST(downloads_of_what_others_hold) {
  Ops& ops = device();
  const Numbers x(ops, numbers(100, 1), 100);
  const auto is_right = [&](const std::shared_ptr<Buffer>& host) {
    host->wait();
    return std::memcmp(host->data(), numbers(100, 1).data(), 400) == 0;
  };
  for (const std::uintptr_t stream : {1, 1, 2}) ops.let_wait(stream);
  auto host = ops.download_later(x.data(), 400);
  CHECK(!host->is_pending() && is_right(host));
  for (const std::uintptr_t stream : {2, 1}) ops.catch_up(stream);
  host = ops.download_later(x.data(), 400);
  CHECK(host->is_pending() && is_right(host));
  ops.catch_up(1);
}

#if defined(INFINILM_CUDA_EMULATED)
TEST(downloads_without_pinned_memory) {
  const auto ops = std::make_unique<cuda::OpsCuda>(0);
  const Numbers x(*ops, numbers(2000, 1), 2000);
  emulation::most_pinned = 0;
  const auto host = ops->download_later(x.data(), 8000);
  emulation::most_pinned = std::numeric_limits<std::size_t>::max();
  CHECK(!host->is_pending());
  CHECK(std::memcmp(host->data(), numbers(2000, 1).data(), 8000) == 0);
}
#endif
