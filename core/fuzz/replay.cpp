// Runs a target on every file of the folders given, and on damaged copies of each: cut at every
// byte, every byte changed, every number replaced, nested and repeated. The same copies each time.
#include <cctype>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/target.hpp"

namespace {

std::size_t runs = 0;

void run(const std::string& input) {
  ++runs;
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

void run_cut_and_flipped(const std::string& seed) {
  for (std::size_t i = 0; i < seed.size(); ++i) {
    run(seed.substr(0, i));
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string copy = seed;
      copy[i] = static_cast<char>(copy[i] ^ flip);
      run(copy);
    }
  }
}

void run_with_other_numbers(const std::string& seed) {
  static const std::vector<std::string> numbers = {"0",
                                                   "-1",
                                                   "-0",
                                                   "1e3",
                                                   "0.5",
                                                   "2147483648",
                                                   "9007199254740992",
                                                   "9223372036854775808",
                                                   "18446744073709551615",
                                                   "18446744073709551616",
                                                   "1e308",
                                                   "1e309",
                                                   "null",
                                                   "true",
                                                   "\"1\"",
                                                   "[]",
                                                   "{}",
                                                   "NaN"};
  for (std::size_t i = 0; i < seed.size(); ++i) {
    if (!std::isdigit(static_cast<unsigned char>(seed[i]))) continue;
    std::size_t end = i;
    while (end < seed.size() &&
           std::string("0123456789.eE+-").find(seed[end]) != std::string::npos) {
      ++end;
    }
    for (const std::string& number : numbers) {
      run(seed.substr(0, i) + number + seed.substr(end));
    }
    i = end;
  }
}

void run_with_insertions(const std::string& seed) {
  const std::vector<std::string> insertions = {std::string(100000, '['),
                                               std::string(3, '\0'),
                                               "\xEF\xBB\xBF",
                                               "\\ud800",
                                               "\xC3",
                                               ",",
                                               "}",
                                               "\""};
  for (std::size_t i = 0; i <= seed.size(); i += 7) {
    for (const std::string& text : insertions) run(seed.substr(0, i) + text + seed.substr(i));
  }
}

void replay(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string seed{std::istreambuf_iterator<char>(in), {}};
  run(seed);
  run_cut_and_flipped(seed);
  run_with_other_numbers(seed);
  run_with_insertions(seed);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    for (int i = 1; i < argc; ++i) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
        if (entry.is_regular_file()) replay(entry.path());
      }
    }
  } catch (const std::exception& error) {  // the target threw something that is no infinilm::Error
    std::cerr << "run " << runs << ": " << error.what() << '\n';
    return 1;
  }
  std::cout << runs << " runs\n";
  return runs > 0 ? 0 : 1;
}
