#include "cpu/memory.hpp"

#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/numa.hpp"

namespace infinilm::cpu {

std::shared_ptr<Buffer> host_memory(std::size_t nbytes) {
#if defined(__linux__)
  constexpr std::size_t kLargePage = std::size_t{1} << 21;
  if (nbytes >= 2 * kLargePage) {
    // A page more, as in Buffer::host: vector kernels may load, never use, what lies behind the end.
    const std::size_t mapped = nbytes + 4096;
    void* memory =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    madvise(memory, mapped, MADV_HUGEPAGE);  // a wish: without it the memory works all the same
    interleave(memory, mapped);
    std::shared_ptr<void> owner(memory, [mapped](void* p) { munmap(p, mapped); });
    return std::make_shared<Buffer>(memory, nbytes, Device(), std::move(owner));
  }
#endif
  return Buffer::host(nbytes);
}

}  // namespace infinilm::cpu
