#include "infinilm/frontend.hpp"

#include <iostream>

namespace infinilm {
namespace {

class StderrFrontend final : public Frontend {
 public:
  void warn(const std::string& text) override {
    std::cerr << "infinilm: warning: " << text << '\n';
  }
  bool interrupted() override { return false; }
};

}  // namespace

Frontend& default_frontend() {
  static StderrFrontend frontend;
  return frontend;
}

}  // namespace infinilm
