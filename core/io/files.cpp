#include "io/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // Linux writes at most 2 GiB at once

// A path with a NUL byte would silently name another file.
const char* c_path(const std::string& path) {
  check(path.find('\0') == std::string::npos, "expected a path without NUL bytes, found ",
        quoted(path));
  return path.c_str();
}

// `named`: what the error says.
int open_or_throw(const std::string& path, int flags, const char* action,
                  const std::string& named) {
  const int descriptor = ::open(c_path(path), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_os_error(action, named, errno);
  return descriptor;
}

std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return concat(path, ".", ::getpid(), "-", counter.fetch_add(1), ".tmp");
}

}  // namespace

void throw_os_error(const char* action, const std::string& path, int error_number) {
  if (error_number == ENOENT || error_number == ENOTDIR) {
    throw FileNotFoundError(concat("no such file or directory: ", path));
  }
  const std::string reason = std::generic_category().message(error_number);
  throw OsError(concat("cannot ", action, " (", reason, "): ", path));
}

// O_NONBLOCK: opening a pipe must not wait for its writer; regular files do not mind.
ReadableFile::ReadableFile(const std::string& path)
    : descriptor_(open_or_throw(path, O_RDONLY | O_NONBLOCK, "open", path)) {
  struct stat info{};
  if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    const char* found = S_ISDIR(info.st_mode) ? "a directory" : "no regular file";
    ::close(descriptor_);
    throw OsError(concat("expected a file, found ", found, ": ", path));
  }
  size_ = static_cast<std::size_t>(info.st_size);
}

ReadableFile::~ReadableFile() { ::close(descriptor_); }

std::string read_file(const std::string& path, std::size_t max_bytes) {
  const ReadableFile file(path);
  check(file.size() <= max_bytes, path, ": expected at most ", max_bytes, " bytes, found ",
        file.size());
  std::string content(file.size(), '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::read(file.descriptor(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_os_error("read", path, errno);
    if (n == 0) break;  // it shrank meanwhile
    done += static_cast<std::size_t>(n);
  }
  content.resize(done);
  return content;
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)),
      temporary_(temporary_name(path_)),
      descriptor_(open_or_throw(temporary_, O_WRONLY | O_CREAT | O_EXCL, "write", path_)) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t nbytes) {
  const char* from = static_cast<const char*>(data);
  while (nbytes > 0) {
    const ssize_t n = ::write(descriptor_, from, std::min(nbytes, kMostAtOnce));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_os_error("write", path_, errno);
    from += n;
    nbytes -= static_cast<std::size_t>(n);
  }
}

void AtomicFile::write_at(std::size_t offset, const void* data, std::size_t nbytes) {
  const char* from = static_cast<const char*>(data);
  while (nbytes > 0) {
    const ssize_t n =
        ::pwrite(descriptor_, from, std::min(nbytes, kMostAtOnce), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_os_error("write", path_, errno);
    from += n;
    offset += static_cast<std::size_t>(n);
    nbytes -= static_cast<std::size_t>(n);
  }
}

void AtomicFile::sync() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS)
    throw_os_error("write", path_, errno);
}

void AtomicFile::commit() {
  sync();
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) throw_os_error("write", path_, errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) throw_os_error("write", path_, errno);
  temporary_.clear();
}

void write_file(const std::string& path, const std::string& content) {
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

void make_directories(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(c_path(directory), error);
  if (error)
    throw_os_error("make the directory", directory,
                   error.value() == ENOTDIR ? EEXIST : error.value());
  check<OsError>(is_directory(directory), "expected a directory, found a file: ", directory);
}

bool is_file(const std::string& path) {
  struct stat info{};
  return ::stat(c_path(path), &info) == 0 && !S_ISDIR(info.st_mode);
}

bool is_directory(const std::string& path) {
  struct stat info{};
  return ::stat(c_path(path), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string join_path(const std::string& directory, const std::string& name) {
  return directory.empty() || directory.back() == '/' ? directory + name : directory + "/" + name;
}

}  // namespace infinilm
