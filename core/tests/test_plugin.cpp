// The border to the CUDA plug-in: errors, counters and tensors cross it as if it were not there.
#include <cstdlib>
#include <string>
#include <vector>

#include "base/device_memory.hpp"
#include "infinilm/error.hpp"
#include "infinilm/runtime.hpp"
#include "infinilm/tensor.hpp"
#include "model/arena.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

const bool chosen = ::setenv("INFINILM_CUDA_PLUGIN", INFINILM_GUARDED_PLUGIN, 1) == 0;

const Device kCuda(DeviceType::CUDA, 0);

float at(const Tensor& tensor, std::size_t i) {
  return reinterpret_cast<const float*>(tensor.data())[i];
}

// From `first` on.
Tensor numbers(const Shape& shape, float first = 0) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    reinterpret_cast<float*>(t.data())[i] = first + static_cast<float>(i);
  return t;
}

// The devices have so much for as long as this lives.
struct Limit {
  explicit Limit(std::size_t nbytes) {
    ::setenv("INFINILM_TEST_DEVICE_BYTES", std::to_string(nbytes).c_str(), 1);
  }
  ~Limit() { ::unsetenv("INFINILM_TEST_DEVICE_BYTES"); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;
};

}  // namespace

TEST(devices_are_listed) {
  const std::vector<CudaDevice> devices = cuda_devices();
  CHECK(devices.size() == 2);
  CHECK(devices[1].index == 1 && devices[1].name == "guarded memory 1");
}

TEST(each_device_has_one_ops) {
  CHECK(ops_for(kCuda) == ops_for(kCuda));
  CHECK(ops_for(kCuda) != ops_for(Device(DeviceType::CUDA, 1)));
  CHECK(ops_for(kCuda)->device() == kCuda);
}

TEST(errors_keep_their_type) {
  CHECK_THROWS(Error, "there is no device \"cuda:7\"", ops_for(Device(DeviceType::CUDA, 7)));
  CHECK_THROWS(ValueError, "", ops_for(kCuda)->kv_block_bytes(1, 1, DataType::BOOL));
  CHECK_THROWS(Error, "asked for", ops_for(kCuda)->allocate(std::size_t{1} << 40));
}

TEST(a_device_says_what_is_free) {
  const Limit limit(10000);
  const auto ops = ops_for(kCuda);
  CHECK(ops->room()->free == 10000 && ops->room()->total == 10000);
  const auto buffer = ops->allocate(4000);
  CHECK(ops->room()->free == 6000);
  CHECK_THROWS(OutOfMemory,
               "out of memory on \"cuda:0\": asked for 8.79 KiB, 5.86 KiB of 9.77 KiB are free",
               ops->allocate(9000));
  CHECK(ops->allocate(6000)->nbytes() == 6000);
  CHECK(!ops_for(Device())->room());
}

TEST(what_lies_idle_in_an_arena_is_given_back_in_need) {
  const Limit limit(10000);
  Arena arena(ops_for(kCuda));
  const auto held = arena.get_exact(3000);
  arena.get_exact(6000);
  CHECK(ops_for(kCuda)->room()->free == 1000);
  CHECK(arena.get_exact(5000)->nbytes() == 5000);
  CHECK_THROWS(OutOfMemory, "asked for", arena.get_exact(8000));
}

TEST(a_recording_keeps_its_memory) {
  const Limit limit(10000);
  Arena outside(ops_for(kCuda));
  Arena arena(ops_for(kCuda), Arena::Idle::Kept);
  const std::byte* memory = arena.get_exact(4000)->data();
  outside.get_exact(5000);
  CHECK(arena.get_exact(6000)->nbytes() == 6000);
  CHECK_THROWS(OutOfMemory, "asked for", arena.get_exact(7000));
  CHECK(arena.get_exact(4000)->data() == memory);
}

TEST(buffers_of_both_sides_are_counted) {
  const auto before = live_buffers();
  {
    const auto buffer = ops_for(kCuda)->allocate(100);
    CHECK(live_buffers() == before + 1);
  }
  CHECK(live_buffers() == before);
}

TEST(tensors_move_and_are_copied) {
  const Tensor host = numbers({4, 3});
  const Tensor there = host.to(kCuda);
  CHECK(there.device() == kCuda && there.is_contiguous());
  CHECK(there.to(kCuda).data() == there.data());
  const Tensor copy = there.clone();
  CHECK(copy.device() == kCuda && copy.data() != there.data());
  const Tensor second = copy.to(Device(DeviceType::CUDA, 1));
  CHECK(second.device().index() == 1);
  CHECK(at(second.to(Device()), 11) == 11);
}

TEST(a_strided_view_is_made_contiguous) {
  const Tensor there = numbers({4, 3}).to(kCuda);
  const Tensor transposed(there.buffer(), DataType::F32, {3, 4}, {1, 3});
  const Tensor copy = transposed.contiguous();
  CHECK(copy.device() == kCuda && copy.is_contiguous());
  const Tensor host = copy.to(Device());
  CHECK(at(host, 0) == 0 && at(host, 1) == 3 && at(host, 4) == 1 && at(host, 11) == 11);
  CHECK(at(transposed.to(Device()), 1) == 3);
}

TEST(empty_tensors_move_too) {
  const Tensor there = Tensor::empty({0, 3}).to(kCuda);
  CHECK(there.device() == kCuda && there.numel() == 0);
  CHECK(there.to(Device()).shape() == Shape({0, 3}));
  CHECK(there.to(Device(), true).shape() == Shape({0, 3}));
}

TEST(what_is_copied_later_has_the_values_of_the_call) {
  const Tensor there = numbers({2, 3}).to(kCuda);
  const Tensor host = there.to(Device(), true);
  CHECK(host.buffer()->is_pending());
  there.copy_from(numbers({2, 3}, 10));
  const Tensor view = host.reshape({3, 2});
  CHECK(view.buffer()->is_pending());
  CHECK(at(view, 0) == 0 && at(view, 5) == 5);
  CHECK(!host.buffer()->is_pending());
}

TEST(memory_of_somebody_else_is_copied_at_once) {
  const Tensor there = numbers({2, 3}).to(kCuda);
  const Tensor theirs =
      Tensor::borrow(there.data(), DataType::F32, {2, 3}, {}, kCuda, there.buffer(), false);
  const Tensor host = theirs.to(Device(), true);
  CHECK(!host.buffer()->is_pending());
  CHECK(at(host, 5) == 5);
}

TEST(whoever_reads_or_writes_waits_for_what_is_on_its_way) {
  const Tensor there = numbers({2, 3}).to(kCuda);
  const auto later = [&] { return there.to(Device(), true); };
  CHECK(at(later().clone(), 5) == 5);
  CHECK(at(later().to(kCuda).to(Device()), 5) == 5);
  const Tensor target = numbers({2, 3}, 10), edited = later();
  target.copy_from(later());
  CHECK(at(target, 5) == 5);
  edited.copy_from(numbers({2, 3}, 10));
  CHECK(at(edited, 0) == 10 && at(edited, 5) == 15);
  const Tensor again = numbers({2, 3}, 10).to(kCuda);
  again.copy_from(later());
  CHECK(at(again.to(Device()), 5) == 5);
}
