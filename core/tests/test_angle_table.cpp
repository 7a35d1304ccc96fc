// What a table gives is what its formula says, wherever one begins, and whoever else asks.
#include <algorithm>
#include <thread>
#include <vector>

#include "model/angle_table.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

const std::vector<float> kFrequencies = {1.0f, 0.1f, 0.003f};
constexpr float kScale = 1.25f;

bool is_right(const AngleTable& table, std::int64_t first, std::int64_t count) {
  constexpr std::int64_t kStride = 5;  // more than there are
  const auto half = static_cast<std::int64_t>(kFrequencies.size());
  std::vector<float> cos(static_cast<std::size_t>(count * kStride), -7.0f), sin = cos;
  table.copy(first, {cos.data(), count, half, kStride}, {sin.data(), count, half, kStride});
  std::vector<float> expected_cos(cos.size(), -7.0f), expected_sin = expected_cos;
  for (std::int64_t r = 0; r < count; ++r) {
    put_angles(kFrequencies, first + r, kScale, expected_cos.data() + r * kStride,
               expected_sin.data() + r * kStride);
  }
  return cos == expected_cos && sin == expected_sin;
}

}  // namespace

TEST(positions) {
  const AngleTable table(kFrequencies, kScale);
  CHECK(is_right(table, 1000, 1));  // nobody has been before it
  CHECK(is_right(table, 0, 200));
  CHECK(is_right(table, 63, 2));
  CHECK(is_right(table, 64, 64));
  CHECK(is_right(table, 130, 900));
  CHECK(is_right(table, 5, 0));
  CHECK(is_right(table, (std::int64_t{1} << 24) - 1, 3));
}

TEST(threads) {
  const AngleTable table(kFrequencies, kScale);
  std::vector<char> right(8);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < right.size(); ++t) {
      threads.emplace_back([&, t] {
        bool all = true;
        for (std::int64_t i = 0; i < 50; ++i) {
          all = all && is_right(table, static_cast<std::int64_t>(t) * 7 + i * 31, 100);
        }
        right[t] = all;
      });
    }
  }
  CHECK(std::count(right.begin(), right.end(), 1) == static_cast<std::ptrdiff_t>(right.size()));
}
