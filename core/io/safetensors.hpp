// The safetensors format: u64 length of the header, header in JSON, data without holes.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <map>
#include <string>

#include "infinilm/checkpoint.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;  // read-only views that keep the file mapped
  std::map<std::string, std::string> metadata;
};

// See `load_safetensors` in infinilm/checkpoint.hpp.
SafetensorsFile read_safetensors(const std::string& path);

}  // namespace infinilm
