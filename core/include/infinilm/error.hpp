// What the core throws. One type per kind of error that a language tells apart; the text always says what
// was expected and what was found.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace infinilm {

// The base of all of them; caught as such, it is Python's RuntimeError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ValueError : public Error {
 public:
  using Error::Error;
};

class TypeError : public Error {
 public:
  using Error::Error;
};

class IndexError : public Error {
 public:
  using Error::Error;
};

class KeyError : public Error {
 public:
  using Error::Error;
};

class OverflowError : public Error {
 public:
  using Error::Error;
};

// A file that is not there; `what()` ends with the path.
class FileNotFoundError : public Error {
 public:
  using Error::Error;
};

// A device has less memory left than was asked for. A language sees its base, as of whatever else a device cannot do.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Any other failure of the operating system (permission, disk full, is a directory).
class OsError : public Error {
 public:
  using Error::Error;
};

// The frontend asked to stop (Ctrl-C) without an error of its own.
class Cancelled : public Error {
 public:
  using Error::Error;
};

// Text out of anything that can be streamed: `concat("expected ", 3, ", found ", n)`.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Throws E with the text built from `parts` unless `ok`; the text is built only on failure.
template <class E = ValueError, class... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) throw E(concat(parts...));
}

// `text` in double quotes, with control characters, quotes and invalid UTF-8 escaped, cut after 120
// characters: for names that come from files and users.
std::string quoted(std::string_view text);
// For strings too by exact match: otherwise argument-dependent lookup would prefer std::quoted, which escapes nothing.
inline std::string quoted(const std::string& text) { return quoted(std::string_view(text)); }
inline std::string quoted(std::string& text) { return quoted(std::string_view(text)); }

}  // namespace infinilm
