// Random numbers without state: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3").
#pragma once

#include <array>
#include <cstdint>

namespace infinilm {

using PhiloxBlock = std::array<std::uint32_t, 4>;

// The block of the stream `key` at `counter`.
PhiloxBlock philox4x32(PhiloxBlock counter, std::array<std::uint32_t, 2> key) noexcept;

// The number that sequence `stream` draws for its token `position`, in [0, 1) with 53 bits: the
// same on every machine and in every batch, also when the step that needed it is run again.
double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t position) noexcept;

// A seed for those who set none, from the system's source of randomness.
std::uint64_t random_seed();

}  // namespace infinilm
