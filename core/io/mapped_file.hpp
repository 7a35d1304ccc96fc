// A file in memory without reading it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "infinilm/tensor.hpp"

namespace infinilm {

class MappedFile {
 public:
  // Read-only and private. Errors as of ReadableFile. An empty file gives an empty view.
  static std::shared_ptr<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  std::string_view bytes() const noexcept { return {static_cast<const char*>(data_), size_}; }

 private:
  MappedFile(std::string path, void* data, std::size_t size);

  std::string path_;
  void* data_;
  std::size_t size_;
};

// Lets go of the memory behind the bytes [begin, end) of a contiguous tensor that lies in a mapped file; nothing otherwise. They are
// read again, from the file, when somebody wants them again. Pages around them may go too.
void forget_pages(const Tensor& tensor, std::size_t begin, std::size_t end);

}  // namespace infinilm
