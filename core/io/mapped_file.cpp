#include "io/mapped_file.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "io/files.hpp"

namespace infinilm {

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  const ReadableFile file(path);
  void* data = nullptr;
  if (file.size() > 0) {
    data = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (data == MAP_FAILED) throw_os_error("map", path, errno);
    ::madvise(data, file.size(), MADV_SEQUENTIAL);  // reads further ahead
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, data, file.size()));
}

MappedFile::MappedFile(std::string path, void* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

void forget_pages(const Tensor& tensor, std::size_t begin, std::size_t end) {
  if (!tensor.buffer() || tensor.buffer()->origin() != Buffer::Origin::File || begin >= end) return;
  // A fault maps the pages of its neighbourhood too, as many as fit into an aligned window of this size.
  constexpr std::uintptr_t kWindow = 1 << 16;
  const auto first = reinterpret_cast<std::uintptr_t>(tensor.buffer()->data());
  const auto last = first + tensor.buffer()->nbytes();
  const auto data = reinterpret_cast<std::uintptr_t>(tensor.data());
  const auto from = std::max(first, (data + begin) / kWindow * kWindow);
  const auto to = std::min(last, (data + end + kWindow - 1) / kWindow * kWindow);
  // The mapping begins with a page, and so does every window.
  ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

}  // namespace infinilm
