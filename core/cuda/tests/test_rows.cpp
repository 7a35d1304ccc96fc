// Row by row: norms, activations, sums, rotations, softmax, copies; and what the device can do at best.
#include <cmath>
#include <memory>
#include <vector>

#include "cuda/tests/two_devices.hpp"
#include "infinilm/error.hpp"

using namespace cuda_tests;

TEST(rows) {
  for (const std::int64_t cols : {1, 83, 256, 1200}) {
    const Floats x = numbers(7 * cols, 1), z = numbers(7 * cols, 2), w = numbers(cols, 3);
    for (const std::int64_t gap : {0, 1, 4}) {
      const auto with_inputs = [&](auto run) {
        return [&, run](Ops& ops, Matrix y) {
          const Numbers a(ops, x, cols, gap), b(ops, z, cols), c(ops, w, cols);
          run(ops, a, b, c, y);
          ops.synchronize();
        };
      };
      CHECK(agree(nothing(7 * cols), cols, gap, 1e-5f, "rms_norm",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers& c,
                                  Matrix y) { ops.rms_norm(a.matrix(), c.data(), 1e-6f, y); })));
      CHECK(agree(x, cols, gap, 1e-5f, "rms_norm in place",
                  with_inputs([&](Ops& ops, const Numbers&, const Numbers&, const Numbers& c,
                                  Matrix y) { ops.rms_norm(y, c.data(), 1e-6f, y); })));
      for (const HiddenAct act :
           {HiddenAct::Silu, HiddenAct::Gelu, HiddenAct::GeluTanh, HiddenAct::Relu}) {
        CHECK(agree(nothing(7 * cols), cols, gap, 1e-5f, concat("act_mul ", static_cast<int>(act)),
                    with_inputs([&](Ops& ops, const Numbers& a, const Numbers& b, const Numbers&,
                                    Matrix y) { ops.act_mul(a.matrix(), b.matrix(), act, y); })));
      }
      CHECK(agree(z, cols, gap, 0.0f, "add",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers&,
                                  Matrix y) { ops.add(a.matrix(), y); })));
      CHECK(agree(nothing(7 * cols), cols, gap, 0.0f, "copy",
                  with_inputs([&](Ops& ops, const Numbers& a, const Numbers&, const Numbers&,
                                  Matrix y) { ops.copy(a.matrix(), y); })));
    }
    Floats masked = x;
    for (std::int64_t i = 0; i < cols; ++i) masked[static_cast<std::size_t>(i)] = -INFINITY;
    if (cols > 1) masked.back() = -INFINITY;
    CHECK(agree(masked, cols, 0, 1e-5f, "softmax", [&](Ops& ops, Matrix y) {
      ops.softmax(y);
      ops.synchronize();
    }));
  }
  const Floats cos = numbers(7 * 11, 4), sin = numbers(7 * 11, 5), heads = numbers(7 * 44, 6);
  CHECK(agree(heads, 44, 1, 1e-6f, "rope", [&](Ops& ops, Matrix y) {
    const Numbers c(ops, cos, 11), s(ops, sin, 11);
    ops.rope(y, 22, c.matrix(), s.matrix());
    ops.synchronize();
  }));
}

// More than one kernel takes, aligned and not, of no rows too.
TEST(copy_each) {
  constexpr std::int64_t kCount = 150;
  std::vector<Floats> values;
  std::vector<std::unique_ptr<Numbers>> from, to;
  std::vector<Matrix> sources, targets;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const std::int64_t rows = i % 4, cols = i == 9 ? 40000 : i % 7 == 0 ? 64 : 1 + i;
    values.push_back(numbers(rows * cols, static_cast<unsigned>(i)));
    from.push_back(std::make_unique<Numbers>(device(), values.back(), cols, i % 5));
    to.push_back(std::make_unique<Numbers>(device(), nothing(rows * cols), cols, i % 3));
    sources.push_back(from.back()->matrix());
    targets.push_back(to.back()->matrix());
  }
  device().copy_each(sources, targets);
  for (std::int64_t i = 0; i < kCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    CHECK(is_close(to[at]->read(), values[at], 0.0f, "copy_each"));
  }
  device().copy_each({}, {});
}

TEST(limits) {
  const auto limits = device().limits(std::size_t{1} << 20);
  CHECK(limits->read_gbs() > 0);
  for (const DataType dtype : {kF32, kBf16, kF16}) {
    const Peak peak = limits->peak(dtype);
    CHECK(peak.gflops > 0 && peak.instruction.find("product of") != std::string::npos);
  }
  CHECK_THROWS(ValueError, "found int8", limits->peak(DataType::I8));
}
