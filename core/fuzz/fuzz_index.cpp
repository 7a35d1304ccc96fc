// model.safetensors.index.json, beside one shard that is in order: no name in it leads out of the
// folder.
#include "fuzz/target.hpp"
#include "infinilm/error.hpp"
#include "io/checkpoint.hpp"

namespace {

std::string shard() {
  std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  return file + header + std::string(4, '\0');
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const infinilm_fuzz::Folder folder;
  static const std::string one = folder.write("model-00001-of-00001.safetensors", shard());
  folder.write("model.safetensors.index.json", infinilm_fuzz::text_of(data, size));
  try {
    const auto checkpoint = infinilm::Checkpoint::open(folder.path());
    if (checkpoint.tensors.size() > 1) std::abort();  // there is only "a"
  } catch (const infinilm::Error&) {
  }
  return 0;
}
