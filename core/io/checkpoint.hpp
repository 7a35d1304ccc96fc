// A HuggingFace directory's tensors, single file or sharded.
#pragma once

#include <map>
#include <string>

#include "infinilm/tensor.hpp"

namespace infinilm {

struct Checkpoint {
  std::map<std::string, Tensor> tensors;  // by HF name; read-only views of the mapped files
  std::string source;  // the file that lists them, for messages: ".../model.safetensors"

  // See `load_checkpoint` in infinilm/checkpoint.hpp, which is this without `source`.
  static Checkpoint open(const std::string& directory);
};

}  // namespace infinilm
