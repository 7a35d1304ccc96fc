// What integer kernels make of x when its activations are int8, for processors that have none.
#pragma once

#include <cstdint>

namespace infinilm::cpu {

// out[k] = x[k] rounded to one of 255 steps, whose size is the largest magnitude of its `run` columns / 127. NaN for a run
// that is not finite.
void round_to_int8(const float* x, std::int64_t columns, std::int64_t run, float* out);

}  // namespace infinilm::cpu
