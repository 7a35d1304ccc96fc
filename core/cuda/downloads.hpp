// Copies to the host that nobody waits for: they leave on a stream of their own, beside the operations.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "cuda/context.hpp"
#include "cuda/pinned_memory.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm::cuda {

// Made as a shared pointer: what was lent keeps it alive. All but dropping a buffer, and waiting for one, happens under
// Context::Use.
class Downloads : public std::enable_shared_from_this<Downloads> {
 public:
  explicit Downloads(std::shared_ptr<Context> context);
  ~Downloads();
  Downloads(const Downloads&) = delete;
  Downloads& operator=(const Downloads&) = delete;

  // `fill` puts the bytes into memory of the device, on the context's stream; from there they leave once that is done. The
  // buffer is pending until they are on the host. Null if memory for it lacks on either side: nothing has happened then.
  std::shared_ptr<Buffer> start(std::size_t nbytes, const std::function<void(void*)>& fill);
  // Returns when all copies have arrived.
  void synchronize();
  // Lets go of memory of the host: what is too much to lie idle, or all that does.
  void tidy() { pool_.tidy(); }
  void give_back() noexcept { pool_.give_back(); }

 private:
  void wait_if_much_is_under_way(std::size_t nbytes);

  std::shared_ptr<Context> context_;
  PinnedPool pool_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t filled_ = nullptr;
  cudaEvent_t mark_ = nullptr;  // of the copies' stream
  std::size_t since_mark_ = 0;  // bytes
};

}  // namespace infinilm::cuda
