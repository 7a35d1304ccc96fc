// Tokens from rows of logits, chosen on the device: no row leaves it.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/choices.hpp"
#include "cuda/context.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

// As Ops::penalize; `used` lies on the device.
void penalize(Context& context, Matrix x, const Penalties& how, std::span<const UsedToken> used);

// As Ops::log_probabilities; `columns` and `found` lie on the device.
void log_probabilities(Context& context, Matrix x, const std::int64_t* columns, float* found);

// Whether rows are narrow enough: a column and its value are one number here.
bool can_sample(Matrix x);
// Scratch memory that `sample` needs, cleared; it leaves it so.
std::size_t sampling_bytes();
// Rows that are done at once.
inline constexpr int kSampledRows = 64;
// As Ops::sample, of at most kSampledRows rows.
void sample(Context& context, Matrix x, const Sampling& how, std::span<const double> numbers,
            std::byte* scratch, Found found);

}  // namespace infinilm::cuda
