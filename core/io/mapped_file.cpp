#include "io/mapped_file.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "io/files.hpp"

namespace infinilm {

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  const ReadableFile file(path);
  void* data = nullptr;
  if (file.size() > 0) {
    data = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (data == MAP_FAILED) throw_os_error("map", path, errno);
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, data, file.size()));
}

MappedFile::MappedFile(std::string path, void* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

}  // namespace infinilm
