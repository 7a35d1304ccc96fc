// Continues a prompt of token ids, greedily, and shows one intermediate tensor:
//   greedy DIRECTORY NEW_TOKENS ID…
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "infinilm/error.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/generate.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"

namespace {

std::int64_t number(const char* text) {
  char* end = nullptr;
  const std::int64_t value = std::strtoll(text, &end, 10);
  infinilm::check(*text != '\0' && *end == '\0', "expected a number, found ",
                  infinilm::quoted(std::string(text)));
  return value;
}

void run(const std::string& directory, std::size_t new_tokens, const infinilm::TokenIds& prompt) {
  infinilm::Frontend& frontend = infinilm::default_frontend();
  auto model = infinilm::LlamaForCausalLM::from_pretrained(directory, {}, frontend);

  auto registry = std::make_shared<infinilm::HookRegistry>();
  auto first = registry->register_hook(
      "final_norm", [](const std::string& name, const infinilm::Tensor& tensor, int) {
        std::cerr << name << ": " << tensor.str() << '\n';
      });
  model->set_hook_registry(registry);

  auto config = infinilm::GenerationConfig::from_pretrained(directory, model->config());
  config.do_sample = false;
  config.max_new_tokens = new_tokens;
  infinilm::Generation generation(model, {prompt}, config, {}, nullptr);
  while (!generation.done()) {
    generation.step(frontend);
    first->remove();  // the prompt's tensor was shown; from here on hooks cost nothing
  }
  for (const std::int64_t id : generation.tokens(0)) std::cout << id << ' ';
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: greedy DIRECTORY NEW_TOKENS ID…\n";
    return 2;
  }
  try {
    infinilm::TokenIds prompt;
    for (int i = 3; i < argc; ++i) prompt.push_back(number(argv[i]));
    run(argv[1], static_cast<std::size_t>(number(argv[2])), prompt);
  } catch (const std::exception& error) {
    std::cerr << "greedy: " << error.what() << '\n';
    return 1;
  }
}
