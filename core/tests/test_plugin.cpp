// The border to the CUDA plug-in: errors, counters and tensors cross it as if it were not there.
#include <cstdlib>
#include <vector>

#include "base/device_memory.hpp"
#include "infinilm/error.hpp"
#include "infinilm/runtime.hpp"
#include "infinilm/tensor.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

const bool chosen = ::setenv("INFINILM_CUDA_PLUGIN", INFINILM_GUARDED_PLUGIN, 1) == 0;

const Device kCuda(DeviceType::CUDA, 0);

float at(const Tensor& tensor, std::size_t i) {
  return reinterpret_cast<const float*>(tensor.data())[i];
}

Tensor numbers(const Shape& shape) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    reinterpret_cast<float*>(t.data())[i] = static_cast<float>(i);
  return t;
}

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
}
