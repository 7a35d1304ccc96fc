// The process's thread pool: parallel loops whose chunks are handed out by an atomic counter.
//
// The caller takes part, so that a worker which the system holds back costs its share of the chunks and no more. Idle
// workers spin for some microseconds and then sleep. Regions of several callers run one after another. A forked child
// gets a fresh pool. The pool is never destroyed: idle workers sleep through the end of the process.
#pragma once

#include <cstdint>
#include <type_traits>

namespace infinilm::cpu {

using Chunk = void (*)(void* context, std::int64_t begin, std::int64_t end);

// Runs chunks that together are [0, count): of at most `grain` indices where several threads take part, all at once
// otherwise. The first exception of a chunk is thrown again here, after the region's end; chunks not
// begun by then are dropped.
void parallel_chunks(std::int64_t count, std::int64_t grain, Chunk chunk, void* context);

// body(begin, end)
template <class Body>
void parallel_for(std::int64_t count, std::int64_t grain, Body&& body) {
  if (count <= grain) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  using Type = std::remove_reference_t<Body>;
  parallel_chunks(
      count, grain,
      [](void* context, std::int64_t begin, std::int64_t end) {
        (*static_cast<Type*>(context))(begin, end);
      },
      &body);
}

// Threads that take part, the caller included.
int pool_threads();
void set_pool_threads(int count);

// Physical cores in the affinity mask, within the cgroup's quota; at least 1.
int default_threads();

}  // namespace infinilm::cpu
