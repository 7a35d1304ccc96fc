// Passes that are asked for before their tokens are known, on a plug-in that needs no GPU: when there are any, and what they leave. What
// a generation makes of them is tested in bindings/tests/test_cuda_ahead.py.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"
#include "model/pass_ahead.hpp"
#include "ops/ops.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

using namespace infinilm;

namespace {

const bool named = ::setenv("INFINILM_CUDA_PLUGIN", INFINILM_GUARDED_PLUGIN, 1) == 0;

constexpr std::int64_t kFirst = 7, kNext = 11;

LlamaConfig tiny_config() {
  LlamaConfig config;
  config.vocab_size = 29;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.max_position_embeddings = 128;
  return config;
}

std::map<std::string, Tensor> random_state(const LlamaConfig& config) {
  std::map<std::string, Tensor> state;
  unsigned seed = 0;
  for (const ParameterInfo& p : parameters(config)) {
    const Tensor t = Tensor::empty(p.shape);
    const auto values = infinilm_test::numbers(t.numel(), ++seed);
    std::memcpy(t.data(), values.data(), t.nbytes());
    state.emplace(p.name, t);
  }
  return state;
}

// A model with a cache of one sequence that has decoded so often that steps are recorded.
struct Decoding {
  LlamaForCausalLM model{tiny_config(), "cuda"};
  std::shared_ptr<HookRegistry> registry = std::make_shared<HookRegistry>();
  std::shared_ptr<KvCache> cache;

  explicit Decoding(std::size_t tokens = 8) {
    model.load_state_dict(random_state(model.config()));
    model.set_hook_registry(registry);
    cache = model.new_cache();
    while (cache->length() < tokens) step(kFirst);
  }
  Tensor step(std::int64_t id) {
    return model.forward_packed({{id}}, {0}, cache, LogitRows::Last, default_frontend())
        .to(Device());
  }
  std::unique_ptr<PassAhead> ask() {
    KnownChoice next({{kNext, 1.0f}});
    return model.forward_ahead({0}, cache, next, default_frontend());
  }
};

bool is_equal(const Tensor& a, const Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.data(), b.data(), a.nbytes()) == 0;
}

}  // namespace

TEST(a_pass_ahead_is_the_pass) {
  for (const std::size_t tokens : {8u, 63u, 64u, 70u}) {
    Decoding d(tokens), plain(tokens);
    const auto pass = d.ask();
    // The guarded plug-in's recordings do not reach into a new block.
    CHECK((pass != nullptr) == (tokens != 64));
    if (!pass) continue;
    CHECK(d.cache->length() == tokens && plain.cache->nbytes() == d.cache->nbytes());
    CHECK(d.model.complete(*pass, {0}, {kNext}));
    CHECK(d.cache->length() == tokens + 1 && d.cache->tokens().back() == kNext);
    CHECK(is_equal(pass->logits.to(Device()), plain.step(kNext)));
    CHECK(is_equal(d.step(kFirst), plain.step(kFirst)));
  }
}

TEST(its_token_may_need_a_new_block) {
  Decoding d(70), plain(70);
  for (Decoding* each : {&d, &plain}) each->cache->truncate(64);
  const auto pass = d.ask();
  CHECK(pass != nullptr && d.cache->nbytes() == plain.cache->nbytes());
  const auto other = d.model.new_cache();
  d.model.forward_packed({{kFirst}}, {0}, other, LogitRows::Last, default_frontend());
  CHECK(d.model.complete(*pass, {0}, {kNext}));
  CHECK(is_equal(pass->logits.to(Device()), plain.step(kNext)));
  CHECK(is_equal(d.step(kFirst), plain.step(kFirst)));
}

TEST(one_that_is_dropped_leaves_no_trace) {
  Decoding d, plain;
  d.ask();
  CHECK(d.cache->length() == plain.cache->length() && d.cache->nbytes() == plain.cache->nbytes());
  CHECK(is_equal(d.step(kFirst), plain.step(kFirst)));
}

TEST(it_is_run_anew_if_anything_has_changed) {
  Decoding d;
  const auto is_outdated_by = [&](auto change) {
    const auto pass = d.ask();
    CHECK(pass != nullptr);
    change();
    const std::size_t length = d.cache->length();
    CHECK(!d.model.complete(*pass, {0}, {kNext}) && d.cache->length() == length);
  };
  is_outdated_by([&] { d.cache->truncate(d.cache->length()); });
  is_outdated_by([&] {
    d.step(kNext);
    d.cache->truncate(d.cache->length() - 1);
  });
  is_outdated_by([&] { d.registry->register_hook("layer0_mlp", [](auto&&...) {})->remove(); });
  is_outdated_by([&] { d.model.set_hook_registry(nullptr); });
  is_outdated_by([&] { d.model.load_state_dict(random_state(d.model.config())); });
}

TEST(there_is_none_where_somebody_watches_or_nothing_is_recorded) {
  Decoding few(3);
  CHECK(few.ask() == nullptr);
  Decoding d;
  const auto hook = d.registry->register_hook("layer0_mlp", [](auto&&...) {});
  CHECK(d.ask() == nullptr);
  hook->remove();
  CHECK(d.ask() != nullptr);
}

TEST(captures_hear_of_a_pass_when_it_is_complete) {
  Decoding d;
  const auto capture = d.registry->capture("layer1_output");
  for (int i = 0; i < 5; ++i) d.step(kFirst);
  const auto last = capture->take().back().step().step;
  d.ask();
  const auto pass = d.ask();
  CHECK(pass != nullptr && capture->take().empty());
  CHECK(d.model.complete(*pass, {0}, {kNext}));
  const std::vector<Captured> kept = capture->take();
  CHECK(kept.size() == 1 && kept[0].step().step == last + 1);
  d.step(kFirst);
  CHECK(capture->take().back().step().step == last + 2);
}
