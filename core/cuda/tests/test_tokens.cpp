// From rows of logits to tokens, as the sampler of the host chooses them.
#include <cmath>

#include "cuda/tests/two_devices.hpp"
#include "generate/random.hpp"
#include "generate/sampler.hpp"

using namespace cuda_tests;

namespace {

Sampling sampling_of(const GenerationConfig& config) {
  return {config.temperature, static_cast<std::int64_t>(config.top_k), config.top_p, config.min_p};
}

// The columns that the sampler of the host draws from the same rows.
void check_sampling(const Floats& x, std::int64_t cols, const GenerationConfig& config,
                    const std::string& what) {
  const Numbers on_device(device(), x, cols, 1);
  const auto rows = static_cast<std::size_t>(on_device.matrix().rows);
  for (const std::uint64_t seed : {1, 3}) {
    std::vector<double> draws;
    for (std::size_t r = 0; r < rows; ++r) draws.push_back(uniform(seed, r, 0));
    if (seed == 3) draws[0] = 0;
    if (seed == 3 && rows > 1) draws[1] = 1 - 0x1p-53;
    const auto choice = device().sample(on_device.matrix(), sampling_of(config), draws);
    const std::span<const Chosen> found = choice->wait();
    for (std::size_t r = 0; r < rows; ++r) {
      const Logits row(x.data() + static_cast<std::int64_t>(r) * cols,
                       static_cast<std::size_t>(cols));
      const std::int64_t expected = draw(candidates(row, config), draws[r]);
      if (found[r].column == expected) continue;
      std::cerr << what << ", row " << r << ": column " << found[r].column << ", expected "
                << expected << '\n';
      CHECK(found[r].column == expected);
    }
  }
}

}  // namespace

TEST(largest) {
  Floats x = numbers(4 * 3000, 1);
  x[2999] = x[17] = 9.0f;       // twice: the first counts
  x[3000 + 2999] = 9.0f;        // the last column
  x[6000 + 5] = std::nanf("");  // larger than anything
  x[6000 + 100] = INFINITY;
  std::fill(x.begin() + 9000, x.end(), -INFINITY);
  const Numbers on_device(device(), x, 3000, 1);
  const auto choice = device().argmax(on_device.matrix());
  const std::span<const Chosen> found = choice->wait();
  CHECK(found[0].column == 17 && found[0].largest == 9.0f);
  CHECK(found[1].column == 2999);
  CHECK(found[2].column == 5 && std::isnan(found[2].largest));
  CHECK(found[3].column == 0);
}

// The host may ask for more before it looks: each has a place of its own, which serves the next ones later, unless they are larger.
TEST(choices_that_wait_for_one_another) {
  constexpr std::int64_t kCols = 70;
  const std::int64_t most = is_quick() ? 4 : 300;
  const Floats x = numbers(most * kCols, 2);
  const Numbers on_device(device(), x, kCols);
  for (int turn = 0; turn < 3; ++turn) {
    const auto first = device().argmax(on_device.matrix().slice(0, 2));
    const auto second = device().argmax(on_device.matrix());
    device().argmax(on_device.matrix().slice(2, 1));  // that nobody waits for
    const auto third = device().argmax(on_device.matrix().slice(1, 1));
    const std::span<const Chosen> found = second->wait();
    CHECK(static_cast<std::int64_t>(found.size()) == most);
    for (std::int64_t r = 0; r < most; ++r) {
      const auto row = x.begin() + r * kCols;
      CHECK(found[static_cast<std::size_t>(r)].column == std::max_element(row, row + kCols) - row);
    }
    CHECK(first->wait()[1].column == found[1].column);
    CHECK(third->wait()[0].column == found[1].column);
  }
}

TEST(sampling) {
  GenerationConfig all;
  all.do_sample = true;
  all.top_k = 0;
  const auto with = [&](auto change) {
    GenerationConfig config = all;
    change(config);
    return config;
  };
  const std::vector<GenerationConfig> configs = {
      all,
      with([](auto& c) { c.top_k = 50; }),
      with([](auto& c) { c.top_k = 1, c.temperature = 1.7; }),
      with([](auto& c) { c.top_p = 0.9; }),
      with([](auto& c) { c.top_p = 1e-9; }),
      with([](auto& c) { c.top_k = 40, c.top_p = 0.5, c.temperature = 3; }),
      with([](auto& c) { c.min_p = 0.1; }),
      with([](auto& c) { c.top_k = 200, c.top_p = 0.95, c.min_p = 0.02, c.temperature = 0.3; }),
      with([](auto& c) { c.temperature = 1e-30; }),
      with([](auto& c) { c.temperature = 1e30, c.top_p = 0.5; }),
      with([](auto& c) { c.top_k = 5000; }),
  };
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const std::string name = concat("settings ", i);
    for (const std::int64_t cols : {1, 7, 2100}) {
      check_sampling(numbers(3 * cols, 5), cols, configs[i], concat(name, ", ", cols, " columns"));
    }
    if (i % 3 == 0) {
      check_sampling(numbers(9000, 6), 9000, configs[i], concat(name, ", many pieces"));
    }
    if (is_quick() && i % 3 != 0) continue;
    Floats few = numbers(2 * 2000, 7);  // of a few values, of both signs, and most of them excluded
    for (float& v : few) v = std::round(v * 2);
    few[5] = -0.0f;
    for (std::size_t j = 2000; j < few.size(); ++j) {
      if (j % 7 != 0) few[j] = -INFINITY;
    }
    check_sampling(few, 2000, configs[i], concat(name, ", equal ones"));
  }
  check_sampling(numbers(70 * 40, 8), 40, configs[1], "more rows than are done at once");

  Floats odd = numbers(4 * 100, 9);
  odd[3] = std::nanf("");
  odd[103] = INFINITY;
  std::fill_n(odd.begin() + 200, 100, -INFINITY);
  const Numbers on_device(device(), odd, 100);
  const std::vector<double> draws(4, 0.5);
  for (const auto& config : configs) {
    const auto choice = device().sample(on_device.matrix(), sampling_of(config), draws);
    const std::span<const Chosen> found = choice->wait();
    CHECK(std::isnan(found[0].largest) && found[1].largest == INFINITY);
    CHECK(found[2].largest == -INFINITY && std::isfinite(found[3].largest));
  }
  constexpr std::int64_t kTooMany = (std::int64_t{1} << 21) + 1;
  CHECK(device().sample({nullptr, 1, kTooMany, kTooMany}, {}, draws) == nullptr);
}

TEST(log_probabilities) {
  constexpr std::int64_t kCols = 3001;
  Floats x = numbers(6 * kCols, 3);
  x[5] = -INFINITY;
  for (std::int64_t i = 0; i < kCols; ++i) x[static_cast<std::size_t>(kCols + i)] *= 30;
  x[2 * kCols + 17] = std::nanf("");
  x[3 * kCols + 17] = INFINITY;
  std::fill_n(x.begin() + 4 * kCols, kCols, -INFINITY);
  const std::vector<std::int64_t> columns = {5, 3000, 0, 0, 0, 7};
  std::vector<float> expected(6), found(6);
  const Numbers on_host(host(), x, kCols), on_device(device(), x, kCols, 2);
  host().log_probabilities(on_host.matrix(), columns, expected);
  device().log_probabilities(on_device.matrix(), columns, found);
  CHECK(expected[0] == -INFINITY && found[0] == -INFINITY);
  for (const std::size_t r : {1, 5}) CHECK(std::abs(found[r] - expected[r]) < 1e-5f);
  for (const std::size_t r : {2, 3, 4}) CHECK(std::isnan(expected[r]) && std::isnan(found[r]));
}

TEST(penalties) {
  constexpr std::int64_t kCols = 500;
  const Floats x = numbers(3 * kCols, 4);
  const std::vector<UsedToken> used = {{3, 0, 0}, {7, 2, 0}, {499, 1, 1}, {0, 5, 2}, {3, 1, 2}};
  for (const Penalties& how :
       {Penalties{1.3, 0, 0}, Penalties{1, 0.4, 0}, Penalties{0.8, 0.5, -0.2}}) {
    CHECK(agree(x, kCols, 1, 1e-7f, "penalties",
                [&](Ops& ops, Matrix y) { ops.penalize(y, how, used); }));
  }
}
