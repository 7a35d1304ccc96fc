// The counter behind live_buffers(): one for the process, also where a plug-in has a copy of this code.
#pragma once

#include <atomic>
#include <cstdint>

namespace infinilm {

std::atomic<std::int64_t>& live_buffer_count() noexcept;
// From now on this copy of the code counts in `counter`. Before the first buffer is made.
void count_live_buffers_in(std::atomic<std::int64_t>* counter) noexcept;

}  // namespace infinilm
