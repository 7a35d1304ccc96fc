// Activation buffers: recycled when dropped, never while somebody holds them.
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "infinilm/device.hpp"
#include "model/arena.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

void fill(Matrix m, float value) {
  for (std::int64_t i = 0; i < m.rows * m.cols; ++i) m.data[i] = value;
}
float first(const Tensor& tensor) { return *reinterpret_cast<const float*>(tensor.data()); }

}  // namespace

TEST(memory_is_used_again_once_it_is_dropped) {
  Arena arena(ops_for(Device()));
  auto buffer = arena.get(1000);
  CHECK(buffer->nbytes() == 1000);
  const auto* memory = buffer->data();
  buffer.reset();
  CHECK(arena.get(1000)->data() == memory);
}

TEST(a_buffer_outlives_its_arena) {
  const auto before = live_buffers();
  std::shared_ptr<Buffer> buffer;
  {
    Arena arena(ops_for(Device()));
    buffer = arena.get(64);
  }
  buffer->data()[63] = std::byte{1};
  buffer.reset();
  CHECK(live_buffers() == before);
}

TEST(what_a_hook_kept_is_not_written_to) {
  auto ops = ops_for(Device());
  Arena arena(ops);
  Activation x(arena, *ops, 2, 3);
  fill(x.fresh(), 1.0f);
  const Tensor kept = x.deliver({2, 3});

  fill(x.writable(), 2.0f);
  CHECK(first(kept) == 1.0f);
  const Tensor next = x.deliver({6});
  CHECK(first(next) == 2.0f);

  fill(x.fresh(), 3.0f);
  CHECK(first(kept) == 1.0f);
  CHECK(first(next) == 2.0f);
}

TEST(an_edit_at_the_next_point_does_not_reach_back) {
  auto ops = ops_for(Device());
  Arena arena(ops);
  Activation x(arena, *ops, 1, 4);
  fill(x.fresh(), 1.0f);
  const Tensor output = x.deliver({4});  // layer0_output, kept
  {
    const Tensor input = x.deliver({4});  // layer1_input: the same values, edited
    CHECK(first(input) == 1.0f);
    *reinterpret_cast<float*>(input.data()) = 5.0f;
  }
  CHECK(first(output) == 1.0f);
  CHECK(x.view().data[0] == 5.0f);
}

TEST(nothing_is_copied_when_nobody_keeps_anything) {
  auto ops = ops_for(Device());
  Arena arena(ops);
  Activation x(arena, *ops, 1, 4);
  const float* memory = x.fresh().data;
  x.deliver({4});
  CHECK(x.writable().data == memory);
  CHECK(x.fresh().data == memory);
}

TEST(threads_may_drop_what_another_made) {
  auto ops = ops_for(Device());
  const auto before = live_buffers();
  {
    Arena arena(ops);
    for (int i = 0; i < 200; ++i) {
      std::vector<std::shared_ptr<Buffer>> made;
      for (int j = 0; j < 8; ++j) made.push_back(arena.get(256));
      std::thread other([given = std::move(made)]() mutable { given.clear(); });
      arena.get(256);
      other.join();
      arena.end_step();
    }
  }
  CHECK(live_buffers() == before);
}
