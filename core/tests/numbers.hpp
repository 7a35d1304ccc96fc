// Numbers to test with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace infinilm_test {

using Floats = std::vector<float>;

// Normally distributed, the same for a seed.
inline Floats numbers(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(engine);
  return values;
}

}  // namespace infinilm_test
