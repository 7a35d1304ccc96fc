// What a test program needs: TEST, CHECK, CHECK_THROWS. The library infinilm_check has the main that runs them.
#pragma once

#include <algorithm>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace infinilm_test {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline int& failures() {
  static int count = 0;
  return count;
}
struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline void fail(const char* file, int line, const std::string& text) {
  ++failures();
  std::cerr << file << ':' << line << ": " << text << '\n';
}

}  // namespace infinilm_test

#define TEST(name)                                                         \
  static void test_##name();                                               \
  static const infinilm_test::Registration add_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) infinilm_test::fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (false)

// `statement` throws an Exception whose text holds `part`.
#define CHECK_THROWS(Exception, part, statement)                                               \
  do {                                                                                         \
    try {                                                                                      \
      statement;                                                                               \
      infinilm_test::fail(__FILE__, __LINE__, "did not throw: " #statement);                   \
    } catch (const Exception& error) {                                                         \
      if (std::string(error.what()).find(part) == std::string::npos)                           \
        infinilm_test::fail(__FILE__, __LINE__, "another text: " + std::string(error.what())); \
    }                                                                                          \
  } while (false)
