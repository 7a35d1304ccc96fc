// Who else holds memory of the device, by DLPack, and on which stream: what is asked for of such memory comes after what they have
// put there, and before what they will.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace infinilm::cuda {

class Consumers {
 public:
  void lend(const void* memory, std::size_t nbytes, std::uintptr_t stream);
  // The end of one such loan; nothing if there was none.
  void take_back(const void* memory, std::uintptr_t stream) noexcept;
  // The streams on which somebody holds any of these bytes, each once.
  std::vector<std::uintptr_t> streams_of(const void* memory, std::size_t nbytes) const;

 private:
  struct Loan {
    std::size_t nbytes;
    std::uintptr_t stream;
  };
  std::multimap<std::uintptr_t, Loan> loans_;  // by address
  std::size_t longest_ = 0;                    // that was ever lent
};

}  // namespace infinilm::cuda
