#include "cpu/int8_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace infinilm::cpu {

void round_to_int8(const float* x, std::int64_t columns, std::int64_t run, float* out) {
  constexpr float kTop = 127.0f, kSmallest = 0x1p-120f;
  for (std::int64_t begin = 0; begin < columns; begin += run) {
    const std::int64_t end = std::min(begin + run, columns);
    float largest = 0.0f;
    bool finite = true;
    for (std::int64_t k = begin; k < end; ++k) {
      largest = std::max(largest, std::fabs(x[k]));
      finite = finite && std::isfinite(x[k]);
    }
    const float inverse = largest >= kSmallest ? kTop / largest : 0.0f;
    for (std::int64_t k = begin; k < end; ++k) {
      out[k] = finite ? std::nearbyint(x[k] * inverse) * (largest / kTop)
                      : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

}  // namespace infinilm::cpu
