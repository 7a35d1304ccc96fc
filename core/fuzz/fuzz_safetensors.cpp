// A safetensors file: every byte of an accepted tensor can be read.
#include <algorithm>

#include "fuzz/target.hpp"
#include "infinilm/error.hpp"
#include "io/safetensors.hpp"

namespace {

constexpr std::size_t kDataBytes = 32;

void read(std::string_view content) {
  static const infinilm_fuzz::Folder folder;
  const std::string path = folder.write("model.safetensors", content);
  try {
    const auto file = infinilm::read_safetensors(path);
    unsigned sum = 0;
    for (const auto& [name, tensor] : file.tensors) {
      for (std::size_t i = 0; i < tensor.nbytes(); ++i) {
        sum += std::to_integer<unsigned>(tensor.data()[i]);
      }
    }
    [[maybe_unused]] static volatile unsigned sink;
    sink = sum;
  } catch (const infinilm::Error&) {
  }
}

// The input as a header and 32 bytes of data, under a length that is right, so that damage gets past it.
std::string with_length(std::string_view input) {
  std::size_t length = input.size() - std::min(input.size(), kDataBytes);
  std::string file;
  for (int i = 0; i < 8; ++i, length >>= 8) file.push_back(static_cast<char>(length & 0xFF));
  return file.append(input);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = infinilm_fuzz::text_of(data, size);
  read(input);
  read(with_length(input));
  return 0;
}
