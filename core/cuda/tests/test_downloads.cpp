// Copies to the host that nobody waits for: their values, the memory that they lend, and order with others of the device.
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "cuda/consumers.hpp"
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

// Also of memory that a consumer on any stream holds.
TEST(downloads_of_what_others_hold) {
  Ops& ops = device();
  const auto memory = ops.allocate(400);
  ops.upload(numbers(100, 1).data(), memory->data(), 400);
  for (const std::uintptr_t stream : {1, 1, 2}) ops.lend(*memory, stream);
  const auto host = ops.download_later(memory->data(), 400);
  ops.upload(numbers(100, 2).data(), memory->data(), 400);
  for (const std::uintptr_t stream : {2, 1, 1}) ops.take_back(*memory, stream);
  host->wait();
  CHECK(std::memcmp(host->data(), numbers(100, 1).data(), 400) == 0);
}

// With the step's plan, or before whatever comes instead; of a few bytes and of many, again and again.
TEST(uploads_for_a_step) {
  Ops& ops = device();
  const std::vector<std::int64_t> ids(300, 1);
  for (int step = 0; step < 40; ++step) {
    const auto count = static_cast<std::size_t>(step % 3 == 0 ? 2000 : 1 + step);
    const Floats sent = numbers(static_cast<std::int64_t>(count), step);
    const auto memory = ops.allocate(count * sizeof(float));
    Floats passed = sent;
    ops.upload_for_step(passed.data(), memory->data(), count * sizeof(float));
    passed.assign(count, 0.0f);  // is the caller's again
    if (step % 2 == 0) ops.begin_step(std::span(ids).first(static_cast<std::size_t>(step)), {});
    Floats found(count);
    ops.download(memory->data(), found.data(), count * sizeof(float));
    CHECK(found == sent);
  }
}

TEST(loans) {
  using Streams = std::vector<std::uintptr_t>;
  cuda::Consumers consumers;
  const std::vector<std::byte> memory(100);
  const auto at = [&](std::size_t begin, std::size_t nbytes) {
    return consumers.streams_of(memory.data() + begin, nbytes);
  };
  CHECK(at(0, 100).empty());
  consumers.lend(memory.data() + 10, 10, 1);
  consumers.lend(memory.data() + 10, 10, 7);
  consumers.lend(memory.data() + 10, 10, 7);
  consumers.lend(memory.data() + 40, 20, 1);
  consumers.lend(memory.data() + 45, 1, 5);
  CHECK(at(0, 10).empty() && at(20, 20).empty() && at(60, 40).empty());
  CHECK(at(19, 1).size() == 2 && at(0, 41).size() == 2);
  CHECK(at(59, 1) == Streams{1});  // behind a shorter one
  CHECK(at(0, 100).size() == 3);
  consumers.take_back(memory.data() + 10, 7);
  CHECK(at(10, 10).size() == 2);
  consumers.take_back(memory.data() + 10, 7);
  consumers.take_back(memory.data() + 10, 9);  // was never lent
  CHECK(at(10, 10) == Streams{1});
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

// Somebody may have asked the device to read what it let go of: nothing is written to that before the device has been waited for.
TEST(downloads_into_memory_that_was_let_go) {
  const auto ops = std::make_unique<cuda::OpsCuda>(0);
  constexpr std::size_t kBytes = std::size_t{1} << 24;
  const Numbers x(*ops, numbers(kBytes / 4, 1), kBytes / 4);
  auto first = ops->download_later(x.data(), kBytes);
  first->wait();
  cudaStream_t theirs = nullptr;
  cudaStreamCreateWithFlags(&theirs, cudaStreamNonBlocking);
  std::vector<std::byte> copy(kBytes);
  cudaMemcpyAsync(copy.data(), first->data(), kBytes, cudaMemcpyHostToDevice, theirs);
  first.reset();
  ops->upload(numbers(kBytes / 4, 2).data(), x.data(), kBytes);
  for (int i = 0; i < 40; ++i)
    ops->download_later(x.data(), kBytes)->wait();  // more than is recycled
  cudaStreamSynchronize(theirs);
  CHECK(std::memcmp(copy.data(), numbers(kBytes / 4, 1).data(), kBytes) == 0);
  cudaStreamDestroy(theirs);
}
#endif
