// Buffers whose bytes are on their way: one arrival, whoever looks first waits, and what fails is told to everybody.
#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "infinilm/error.hpp"
#include "infinilm/tensor.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

Tensor pending(std::function<void(std::byte*)> fill) {
  const auto memory = Buffer::host(4);
  return Tensor(std::make_shared<Buffer>(memory->data(), 4, memory,
                                         [=, fill = std::move(fill)] { fill(memory->data()); }),
                DataType::U8, {4});
}

}  // namespace

TEST(it_arrives_once_also_for_many_threads) {
  std::atomic<int> arrivals = 0;
  const Tensor tensor = pending([&](std::byte* memory) {
    ++arrivals;
    for (int i = 0; i < 4; ++i) memory[i] = std::byte{7};
  });
  CHECK(arrivals == 0);
  std::array<std::byte, 4> seen{};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    threads.emplace_back([&, i] { seen[i] = tensor.data()[i]; });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(arrivals == 1);
  for (const std::byte value : seen) CHECK(value == std::byte{7});
}

TEST(what_is_no_look_at_the_values_does_not_wait) {
  const Tensor tensor = pending([](std::byte*) { throw Error("nobody was to wait"); });
  const Tensor view = tensor.reshape({2, 2});
  CHECK(view.contiguous().nbytes() == 4 && view.to(Device()).is_contiguous());
  CHECK(view.str() == "Tensor(shape=(2, 2), dtype=uint8, device=cpu)");
  CHECK(tensor.buffer()->is_pending());
}

TEST(what_never_arrives_is_told_to_everybody) {
  const Tensor tensor = pending([](std::byte*) { throw Error("the device is lost"); });
  for (int i = 0; i < 2; ++i) CHECK_THROWS(Error, "lost", static_cast<void>(tensor.data()));
  CHECK_THROWS(Error, "lost", tensor.clone());
  CHECK_THROWS(Error, "lost", Tensor::empty({4}, DataType::U8).copy_from(tensor));
}
