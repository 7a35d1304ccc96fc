// Tokens on their way to the host: kernels write them into page-locked memory, from where the host reads them, and the next step its ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/context.hpp"
#include "ops/choice.hpp"

namespace infinilm::cuda {

// Where kernels put what they find, row by row.
struct Found {
  Chosen* rows;
  std::int64_t* columns;  // the same once more, one after the other, as ids are

  Found from(std::int64_t first) const {
    return {rows + first, columns == nullptr ? nullptr : columns + first};
  }
};

// Places that are lent again and again. All that uses them comes one after the other on the context's stream: who gives one back need not wait
// for what is on its way into it.
class Choices {
 public:
  struct Place {
    std::size_t rows = 0;
    void* memory = nullptr;
    cudaEvent_t found = nullptr;

    Found parts() const;
  };

  explicit Choices(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~Choices();
  Choices(const Choices&) = delete;
  Choices& operator=(const Choices&) = delete;

  // Under Context::Use.
  Place take(std::size_t rows);
  // On any thread.
  void give(const Place& place) noexcept;
  Context& context() noexcept { return *context_; }

 private:
  Place make(std::size_t rows);

  std::shared_ptr<Context> context_;
  std::mutex mutex_;         // guards what follows
  std::vector<Place> idle_;  // has room for all
  std::size_t count_ = 0;
};

class CudaChoice final : public Choice {
 public:
  // Under Context::Use.
  CudaChoice(std::shared_ptr<Choices> all, std::size_t rows);
  ~CudaChoice() override { all_->give(place_); }
  Found found() const { return place_.parts(); }
  // Under Context::Use: all kernels that find it have been asked for.
  void asked();

  // Without Context::Use: others go on meanwhile.
  std::span<const Chosen> wait() override;

 private:
  std::shared_ptr<Choices> all_;
  const std::size_t rows_;
  Choices::Place place_;
  std::uint64_t uploads_ = 0;
  bool is_there_ = false;
};

}  // namespace infinilm::cuda
