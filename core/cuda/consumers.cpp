#include "cuda/consumers.hpp"

#include <algorithm>

namespace infinilm::cuda {
namespace {

std::uintptr_t address_of(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

}  // namespace

void Consumers::lend(const void* memory, std::size_t nbytes, std::uintptr_t stream) {
  longest_ = std::max(longest_, nbytes);
  loans_.insert({address_of(memory), {nbytes, stream}});
}

void Consumers::take_back(const void* memory, std::uintptr_t stream) noexcept {
  const auto [begin, end] = loans_.equal_range(address_of(memory));
  const auto found =
      std::find_if(begin, end, [&](const auto& loan) { return loan.second.stream == stream; });
  if (found != end) loans_.erase(found);
}

std::vector<std::uintptr_t> Consumers::streams_of(const void* memory, std::size_t nbytes) const {
  std::vector<std::uintptr_t> streams;
  const std::uintptr_t begin = address_of(memory);
  // Backwards from the end, as long as any could reach to these bytes.
  for (auto loan = loans_.lower_bound(begin + nbytes); loan != loans_.begin();) {
    --loan;
    if (loan->first + longest_ <= begin) break;
    if (loan->first + loan->second.nbytes <= begin) continue;
    const std::uintptr_t stream = loan->second.stream;
    if (std::find(streams.begin(), streams.end(), stream) == streams.end()) {
      streams.push_back(stream);
    }
  }
  return streams;
}

}  // namespace infinilm::cuda
