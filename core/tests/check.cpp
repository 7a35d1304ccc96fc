#include "tests/check.hpp"

#include <algorithm>

// Of the tests that are named, or of all.
int main(int argc, char** argv) {
  const std::vector<std::string> named(argv + 1, argv + argc);
  std::size_t ran = 0;
  for (const auto& test : infinilm_test::tests()) {
    if (!named.empty() && std::find(named.begin(), named.end(), test.name) == named.end()) continue;
    ++ran;
    try {
      test.body();
    } catch (const std::exception& error) {
      infinilm_test::fail(test.name, 0, std::string("threw ") + error.what());
    }
  }
  std::cout << ran << " tests, " << infinilm_test::failures() << " failures\n";
  const bool found_all = named.empty() || ran == named.size();
  return infinilm_test::failures() == 0 && found_all ? 0 : 1;
}
