#include "cuda/downloads.hpp"

#include <utility>

#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// Copies on their way hold at most about twice so much of the device's memory, or the two largest ones.
constexpr std::size_t kUnderWay = std::size_t{1} << 28;

}  // namespace

Downloads::Downloads(std::shared_ptr<Context> context)
    : context_(std::move(context)), pool_(context_->device()) {
  const OnDevice here(context_->device());
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  check_cuda(cudaEventCreateWithFlags(&filled_, cudaEventDisableTiming), "making an event");
  check_cuda(cudaEventCreateWithFlags(&mark_, cudaEventDisableTiming), "making an event");
}

Downloads::~Downloads() {
  const OnDevice here(context_->device());
  cudaStreamSynchronize(stream_);
  cudaEventDestroy(mark_);
  cudaEventDestroy(filled_);
  cudaStreamDestroy(stream_);
}

// Where copies are slower than what makes their values, it is the device that waits: for those before the last mark, whose
// memory is free then for whatever comes.
void Downloads::wait_if_much_is_under_way(std::size_t nbytes) {
  since_mark_ += nbytes;
  if (since_mark_ <= kUnderWay) return;
  check_cuda(cudaStreamWaitEvent(context_->stream(), mark_, 0), "waiting for copies to the host");
  check_cuda(cudaEventRecord(mark_, stream_), "recording an event");
  since_mark_ = nbytes;
}

std::shared_ptr<Buffer> Downloads::start(std::size_t nbytes,
                                         const std::function<void(void*)>& fill) {
  std::unique_ptr<PinnedBlock> taken = pool_.take(nbytes);
  if (!taken) return nullptr;
  const auto give = [self = shared_from_this()](PinnedBlock* b) {
    self->pool_.give(std::unique_ptr<PinnedBlock>(b));
  };
  const std::shared_ptr<PinnedBlock> block(taken.release(), give);
  const auto drop = [this](void* memory) { context_->free(memory); };
  // No more than there is: whoever is short of memory need not wait for the device to find some for this.
  std::unique_ptr<void, decltype(drop)> staging(context_->try_allocate(nbytes), drop);
  if (!staging) return nullptr;
  if (block->arrived == nullptr) {
    check_cuda(cudaEventCreateWithFlags(&block->arrived, cudaEventDisableTiming),
               "making an event");
  }
  wait_if_much_is_under_way(nbytes);
  fill(staging.get());
  // Both calls mean the event as it is now; that it is recorded again for the next copy does not change this one.
  check_cuda(cudaEventRecord(filled_, context_->stream()), "recording an event");
  check_cuda(cudaStreamWaitEvent(stream_, filled_, 0), "waiting for an event");
  check_cuda(cudaMemcpyAsync(block->memory, staging.get(), nbytes, cudaMemcpyDeviceToHost, stream_),
             concat("copying ", nbytes, " bytes from the device"));
  // From here on it is used there: freed there, after the copy. An error (a lost device) is met again by the next call.
  cudaFreeAsync(staging.release(), stream_);
  check_cuda(cudaEventRecord(block->arrived, stream_), "recording an event");
  // Without Context::Use: others go on while somebody waits.
  const auto arrival = [block] {
    check_cuda(cudaEventSynchronize(block->arrived), "waiting for a copy to the host");
  };
  return std::make_shared<Buffer>(block->memory, nbytes, block, arrival);
}

void Downloads::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "waiting for copies to the host");
}

}  // namespace infinilm::cuda
