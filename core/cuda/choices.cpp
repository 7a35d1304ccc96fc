#include "cuda/choices.hpp"

#include <algorithm>

namespace infinilm::cuda {
namespace {

constexpr std::size_t kLeastRows = 256;
constexpr std::size_t kRowBytes = sizeof(Chosen) + sizeof(std::int64_t);

}  // namespace

Found Choices::Place::parts() const {
  auto* of_rows = static_cast<Chosen*>(memory);
  return {of_rows, reinterpret_cast<std::int64_t*>(of_rows + rows)};
}

Choices::~Choices() {
  const OnDevice here(context_->device());
  cudaStreamSynchronize(context_->stream());
  for (const Place& place : idle_) {
    cudaEventDestroy(place.found);
    cudaFreeHost(place.memory);
  }
}

Choices::Place Choices::take(std::size_t rows) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(idle_.begin(), idle_.end(),
                                  [&](const Place& place) { return place.rows >= rows; });
  if (found == idle_.end()) return make(std::max(rows, kLeastRows));
  const Place place = *found;
  idle_.erase(found);
  return place;
}

Choices::Place Choices::make(std::size_t rows) {
  idle_.reserve(count_ + 1);  // so that giving back cannot fail
  Place place;
  place.rows = rows;
  check_cuda(cudaMallocHost(&place.memory, rows * kRowBytes), "allocating pinned memory");
  const auto made = cudaEventCreateWithFlags(&place.found, cudaEventDisableTiming);
  if (made != cudaSuccess) cudaFreeHost(place.memory);
  check_cuda(made, "making an event");
  ++count_;
  return place;
}

void Choices::give(const Place& place) noexcept {
  const std::lock_guard lock(mutex_);
  idle_.push_back(place);
}

CudaChoice::CudaChoice(std::shared_ptr<Choices> all, std::size_t rows)
    : all_(std::move(all)), rows_(rows), place_(all_->take(rows)) {}

void CudaChoice::asked() {
  uploads_ = all_->context().uploads();
  check_cuda(cudaEventRecord(place_.found, all_->context().stream()), "recording an event");
}

std::span<const Chosen> CudaChoice::wait() {
  if (!is_there_) {
    check_cuda(cudaEventSynchronize(place_.found), "waiting for the device");
    all_->context().uploads_arrived(uploads_);
    is_there_ = true;
  }
  return {place_.parts().rows, rows_};
}

}  // namespace infinilm::cuda
