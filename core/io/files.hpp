// Small files whole, and writing that never leaves half a file behind.
#pragma once

#include <cstddef>
#include <string>

namespace infinilm {

// An open file descriptor for reading a regular file.
class ReadableFile {
 public:
  // FileNotFoundError if it is not there; OsError for a directory, a pipe, a lack of permission.
  explicit ReadableFile(const std::string& path);
  ~ReadableFile();
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  int descriptor() const noexcept { return descriptor_; }
  std::size_t size() const noexcept { return size_; }

 private:
  int descriptor_;
  std::size_t size_ = 0;
};

// The whole file. Errors as above; ValueError if it is larger than `max_bytes`.
std::string read_file(const std::string& path, std::size_t max_bytes);

// A file that appears under its name, complete, on `commit`, and not at all otherwise.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t nbytes);
  // From byte `offset` of the file on, wherever `write` is.
  void write_at(std::size_t offset, const void* data, std::size_t nbytes);
  // Until it is on the disk: full disks are noticed here at the latest.
  void sync();
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int descriptor_;
};

void write_file(const std::string& path, const std::string& content);

// Makes `directory` and its parents where they are missing. OsError.
void make_directories(const std::string& directory);

bool is_file(const std::string& path);
bool is_directory(const std::string& path);
std::string join_path(const std::string& directory, const std::string& name);

// Throws FileNotFoundError or OsError for `errno`: "cannot open: Permission denied: /a/b".
[[noreturn]] void throw_os_error(const char* action, const std::string& path, int error_number);

}  // namespace infinilm
