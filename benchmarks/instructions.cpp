// One forward pass to be counted by instructions.py: instructions DIRECTORY TOKENS attached|plain
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "infinilm/error.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/model.hpp"
#include "infinilm/runtime.hpp"

namespace {

void run(const std::string& directory, std::int64_t tokens, bool attached) {
  infinilm::set_num_threads(1);
  infinilm::Frontend& frontend = infinilm::default_frontend();
  auto model = infinilm::LlamaForCausalLM::from_pretrained(directory, {}, frontend);
  if (attached) model->set_hook_registry(std::make_shared<infinilm::HookRegistry>());
  const infinilm::Tensor ids = infinilm::Tensor::empty({tokens}, infinilm::DataType::I64);
  auto* id = reinterpret_cast<std::int64_t*>(ids.data());
  for (std::int64_t i = 0; i < tokens; ++i) id[i] = i % 100;
  // The second pass finds its buffers in the arena: what every later one costs.
  for (int pass = 0; pass < 2; ++pass) model->forward(ids, nullptr, 1, frontend);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    run(argv[1], std::atoll(argv[2]), std::string(argv[3]) == "attached");
  } catch (const std::exception& error) {
    std::cerr << "instructions: " << error.what() << '\n';
    return 1;
  }
}
