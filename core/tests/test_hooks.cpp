// The registry: globs, order, handles, changes from inside a callback and from other threads.
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "infinilm/error.hpp"
#include "infinilm/hooks.hpp"
#include "tests/check.hpp"

using namespace infinilm;

TEST(globs_match_the_whole_name) {
  CHECK(glob_match("layer*_mlp", "layer12_mlp"));
  CHECK(!glob_match("layer*_mlp", "layer12_mlp_output"));
  CHECK(glob_match("layer?_input", "layer3_input"));
  CHECK(!glob_match("layer?_input", "layer13_input"));
  CHECK(glob_match("layer[0-2]_mlp", "layer1_mlp"));
  CHECK(!glob_match("layer[!0-2]_mlp", "layer1_mlp"));
  CHECK(glob_match("layer#_output", "layer10_output"));
  CHECK(!glob_match("layer#_output", "layer_output"));
  CHECK(!glob_match("layer#_output", "layer0_attention_output"));
  CHECK(glob_match("*", ""));
  CHECK(glob_match("[", "["));  // an unclosed set is the character itself, as in fnmatch
}

TEST(globs_do_not_take_exponential_time) {
  const std::string name(200, 'a');
  std::string pattern;
  for (int i = 0; i < 60; ++i) pattern += "*a";
  CHECK(!glob_match(pattern + "b", name));
}

TEST(registrations_fire_in_order_and_a_name_keeps_its_place) {
  auto registry = std::make_shared<HookRegistry>();
  std::string log;
  auto append = [&log](const char* letter) {
    return [&log, letter](const std::string&, const Tensor&, int) { log += letter; };
  };
  auto first = registry->register_hook("x", append("a"));
  auto second = registry->register_hook("*", append("b"));
  registry->call_hook("x", Tensor());
  auto replaced = registry->register_hook("x", append("c"));
  registry->call_hook("x", Tensor());
  CHECK(log == "abcb");
  CHECK(first->calls() == 1 && second->calls() == 2 && replaced->calls() == 1);

  first->remove();  // inert: its registration was replaced
  CHECK(registry->size() == 2);
  replaced->remove();
  registry->call_hook("x", Tensor());
  CHECK(log == "abcbb");
}

TEST(nothing_is_evaluated_when_no_hook_is_set) {
  std::shared_ptr<HookRegistry> none;
  auto empty = std::make_shared<HookRegistry>();
  int evaluated = 0;
  auto name = [&evaluated] { return ++evaluated, std::string("x"); };
  CALL_HOOK(none, name(), Tensor());
  CALL_HOOK_LAYER(empty, name(), Tensor(), 1);
  CHECK(evaluated == 0);
  const std::string prefix = "p", bare;
  CHECK(BUILD_HOOK_PREFIX(prefix, "x") == "p_x");
  CHECK(BUILD_HOOK_PREFIX(bare, "x") == "x");
}

TEST(a_callback_may_change_the_registry_it_runs_in) {
  auto registry = std::make_shared<HookRegistry>();
  int calls = 0;
  registry->register_hook("x", [&](const std::string&, const Tensor&, int) {
    ++calls;
    registry->clear();
    registry->register_hook("y", [&](const std::string&, const Tensor&, int) { calls += 10; });
  });
  registry->call_hook("x", Tensor());
  registry->call_hook("x", Tensor());
  registry->call_hook("y", Tensor());
  CHECK(calls == 11);
}

TEST(an_exception_reaches_the_caller_and_nothing_is_lost) {
  const auto before = live_hook_entries();
  {
    auto registry = std::make_shared<HookRegistry>();
    registry->register_hook(
        "x", [](const std::string&, const Tensor&, int) { throw std::domain_error("mine"); });
    CHECK_THROWS(std::domain_error, "mine", registry->call_hook("x", Tensor()));
    CHECK_THROWS(ValueError, "", registry->register_hook("", [](auto&&...) {}));
  }
  CHECK(live_hook_entries() == before);
}

TEST(threads_may_register_remove_and_call_at_once) {
  const auto before = live_hook_entries();
  {
    auto registry = std::make_shared<HookRegistry>();
    std::atomic<int> calls{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        const std::string own = "own" + std::to_string(t);
        for (int i = 0; i < 500; ++i) {
          auto handle = registry->register_hook(
              own, [&calls](const std::string&, const Tensor&, int) { ++calls; });
          registry->call_hook(own, Tensor());
          registry->names();
          handle->remove();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(calls == 2000);
    CHECK(!registry->has_hooks());
  }
  CHECK(live_hook_entries() == before);
}
