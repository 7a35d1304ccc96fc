// The safetensors format: u64 length of the header, header in JSON, data without holes.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "infinilm/checkpoint.hpp"
#include "infinilm/tensor.hpp"
#include "io/files.hpp"

namespace infinilm {

struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;  // read-only views that keep the file mapped
  std::map<std::string, std::string> metadata;
};

// See `load_safetensors` in infinilm/checkpoint.hpp.
SafetensorsFile read_safetensors(const std::string& path);

struct TensorEntry {
  std::string name;
  DataType dtype;
  Shape shape;
};

// A file whose tensors are known before their data, which comes piece by piece and in any order. As `save_safetensors`: nothing
// is there before `commit`.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorEntry> entries,
                    const std::map<std::string, std::string>& metadata);

  std::size_t nbytes() const noexcept { return nbytes_; }  // of all tensors
  std::size_t written() const noexcept { return written_; }
  // Bytes of the tensor from `offset` on.
  void write(const std::string& name, std::size_t offset, const void* data, std::size_t nbytes);
  void write(const std::string& name, const Tensor& tensor);  // a whole one, contiguous
  void commit();

 private:
  struct Extent {
    std::size_t begin, end;  // bytes of the data
  };
  AtomicFile file_;
  std::map<std::string, Extent> extents_;
  std::size_t begin_ = 0;  // of the data in the file
  std::size_t nbytes_ = 0, written_ = 0;
};

}  // namespace infinilm
