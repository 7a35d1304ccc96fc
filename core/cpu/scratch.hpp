// Memory that a thread uses again and again.
#pragma once

#include <cstddef>
#include <memory>

#include "infinilm/tensor.hpp"

namespace infinilm::cpu {

// Grows to the largest request, and shrinks when it was far larger than what is asked for now.
class Scratch {
 public:
  float* floats(std::int64_t count) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    if (!memory_ || memory_->nbytes() < bytes ||
        (memory_->nbytes() > kKeep && memory_->nbytes() / 8 > bytes)) {
      memory_.reset();
      memory_ = std::make_unique<Memory>(bytes);
    }
    return memory_->data();
  }

 private:
  static constexpr std::size_t kKeep = std::size_t{1} << 24;

  class Memory {
   public:
    explicit Memory(std::size_t nbytes)
        : nbytes_(nbytes),
          data_(static_cast<float*>(::operator new(nbytes + 64, std::align_val_t{64}))) {}
    ~Memory() { ::operator delete(data_, std::align_val_t{64}); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    std::size_t nbytes() const noexcept { return nbytes_; }
    float* data() const noexcept { return data_; }

   private:
    std::size_t nbytes_;
    float* data_;
  };

  std::unique_ptr<Memory> memory_;
};

}  // namespace infinilm::cpu
