// config.json: what is accepted survives a round trip, and its numbers are safe to compute with.
#include "fuzz/target.hpp"
#include "infinilm/config.hpp"
#include "infinilm/error.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto text = std::string(infinilm_fuzz::text_of(data, size));
    const auto config = infinilm::LlamaConfig::from_json(text);
    config.validate();
    // By text: a NaN in the file equals itself only so.
    const std::string written = config.to_json();
    if (infinilm::LlamaConfig::from_json(written).to_json() != written) std::abort();
  } catch (const infinilm::Error&) {
  }
  return 0;
}
