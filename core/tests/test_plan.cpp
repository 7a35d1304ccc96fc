// Plans: what a registration means for one model, and when a runner notices that it changed.
#include <memory>
#include <string>
#include <vector>

#include "hooks/plan.hpp"
#include "infinilm/capture.hpp"
#include "infinilm/error.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

struct Recorder : Frontend {
  void warn(const std::string& text) override { warnings.push_back(text); }
  bool interrupted() override { return false; }
  std::vector<std::string> warnings;
};

// Two layers, all points run in order; what the callbacks were told goes into `heard`.
struct Model {
  explicit Model(std::shared_ptr<HookRegistry> registry, const std::string& prefix = "")
      : connection(std::make_shared<HookConnection>(std::move(registry), 2, prefix)) {}

  void run(Recorder& frontend) const {
    HookRunner runner(connection, frontend, StepInfo{7, {}});
    for_each_point(2, [&](Point point, int layer) {
      if (runner.wants(point, layer)) runner.run(point, layer, Tensor());
    });
  }

  std::shared_ptr<HookConnection> connection;
};

struct Heard {
  HookCallback callback() {
    return [this](const std::string& name, const Tensor&, int) { names.push_back(name); };
  }
  std::vector<std::string> names;
};

using Names = std::vector<std::string>;

}  // namespace

TEST(names_and_globs_are_heard_in_order_of_execution) {
  auto registry = std::make_shared<HookRegistry>();
  Heard heard;
  registry->register_hook("layer#_output", heard.callback());
  registry->register_hook("embed_tokens", heard.callback());
  Recorder frontend;
  Model(registry).run(frontend);
  CHECK((heard.names == Names{"embed_tokens", "layer0_output", "layer1_output"}));
  CHECK(frontend.warnings.empty());
}

TEST(a_model_that_nobody_watches_knows_it) {
  auto registry = std::make_shared<HookRegistry>();
  Recorder frontend;
  const Model ours(registry, "ours"), other(registry, "other");
  HookRunner runner(ours.connection, frontend, StepInfo{}),
      others(other.connection, frontend, StepInfo{});
  CHECK(runner.wanted().empty());
  registry->register_hook("other_layer1_mlp", [](auto&&...) {});
  CHECK(runner.wanted().empty());
  CHECK(!others.wanted().empty());
  registry->register_hook("layer0_output", [](auto&&...) {});
  CHECK(!runner.wanted().empty());
  registry->clear();
  CHECK(runner.wanted().empty() && others.wanted().empty());
  CHECK(frontend.warnings.empty());
}

TEST(an_alias_is_heard_under_its_own_name_and_matches_no_glob) {
  auto registry = std::make_shared<HookRegistry>();
  Heard heard;
  registry->register_hook("layer1_mlp_output", heard.callback());
  registry->register_hook("layer*_mlp_output", heard.callback());
  Recorder frontend;
  Model(registry).run(frontend);
  CHECK((heard.names == Names{"layer1_mlp_output"}));
  CHECK(frontend.warnings.size() == 1);
  CHECK(frontend.warnings.at(0).find("alias") != std::string::npos);
}

TEST(a_prefix_tells_models_of_a_shared_registry_apart) {
  auto registry = std::make_shared<HookRegistry>();
  Heard both, one;
  registry->register_hook("layer0_mlp", both.callback());
  registry->register_hook("q_layer0_mlp", one.callback());
  const Model p(registry, "p"), q(registry, "q");
  Recorder frontend;
  p.run(frontend);
  q.run(frontend);
  CHECK((both.names == Names{"p_layer0_mlp", "q_layer0_mlp"}));
  CHECK((one.names == Names{"q_layer0_mlp"}));
  CHECK(frontend.warnings.empty());
}

TEST(a_name_that_matches_nothing_is_warned_of_once_with_the_nearest) {
  auto registry = std::make_shared<HookRegistry>();
  registry->register_hook("layer0_mpl", [](auto&&...) {});
  const Model model(registry);
  Recorder frontend;
  model.run(frontend);
  model.run(frontend);
  CHECK(frontend.warnings.size() == 1);
  CHECK(frontend.warnings.at(0).find("layer0_mlp") != std::string::npos);
}

TEST(a_change_takes_effect_at_the_next_point) {
  auto registry = std::make_shared<HookRegistry>();
  Heard heard;
  registry->register_hook("layer0_input", [&](const std::string&, const Tensor&, int) {
    registry->register_hook("layer0_output", heard.callback());
    registry->register_hook("embed_tokens", heard.callback());  // has passed
  });
  registry->register_hook("layer1_input",
                          [&](const std::string&, const Tensor&, int) { registry->clear(); });
  registry->register_hook("layer1_output", heard.callback());
  Recorder frontend;
  Model(registry).run(frontend);
  CHECK((heard.names == Names{"layer0_output"}));
}

TEST(the_step_is_known_inside_of_a_hook_only) {
  auto registry = std::make_shared<HookRegistry>();
  std::int64_t step = 0;
  registry->register_hook("logits", [&](auto&&...) { step = current_step().step; });
  Recorder frontend;
  Model(registry).run(frontend);
  CHECK(step == 7);
  CHECK_THROWS(Error, "inside of a hook", current_step());
}

TEST(captures_can_be_given_what_they_keep_later) {
  auto registry = std::make_shared<HookRegistry>();
  Recorder frontend;
  const Model model(registry);
  HookRunner runner(model.connection, frontend, StepInfo{7, {}});
  CHECK(runner.freeze());  // nobody watches
  CHECK(runner.wanted().empty());
  const auto here = registry->capture("layer#_output"),
             there = registry->capture("layer1_output", true);
  CHECK(!runner.wants(Point::LayerOutput, 1));  // not as long as it is frozen
  runner.thaw();
  CHECK(runner.wants(Point::LayerOutput, 1));

  CHECK(runner.freeze());
  CHECK(runner.wanted().size() == 2 && !runner.wants_callbacks());
  CHECK(runner.where(Point::LayerOutput, 0).here && !runner.where(Point::LayerOutput, 0).on_cpu);
  CHECK(runner.where(Point::LayerOutput, 1).here && runner.where(Point::LayerOutput, 1).on_cpu);
  registry->register_hook("layer1_output", [](auto&&...) { CHECK(false); });
  const Tensor one = Tensor::empty({1}), other = Tensor::empty({2});
  runner.keep(Point::LayerOutput, 1, one, other);
  there->remove();
  runner.keep(Point::LayerOutput, 1, one, other);
  runner.thaw();
  CHECK(runner.wants_callbacks());
  CHECK(here->size() == 0);  // not before the end of the pass
  runner.hand_over();
  CHECK(here->calls() == 2 && there->calls() == 1 && here->size() == 2);
  CHECK(here->of("layer1_output").size() == 2 && here->of("layer0_output").empty());
  CHECK(here->take().front().tensor().shape() == Shape{1});
  CHECK(there->values().front().tensor().shape() == Shape{2});
  CHECK(there->values().front().step().step == 7 && here->values().empty());
}

TEST(what_has_to_be_seen_at_once_does_not_freeze) {
  auto registry = std::make_shared<HookRegistry>();
  Recorder frontend;
  const Model model(registry);
  HookRunner runner(model.connection, frontend, StepInfo{});
  const auto capture = registry->capture("layer0_mlp");
  CHECK(runner.freeze());
  runner.thaw();
  const auto weights = registry->capture("layer0_attention_weights");
  CHECK(!runner.freeze());
  weights->remove();
  const auto handle = registry->register_hook("logits", [](auto&&...) {});
  CHECK(!runner.freeze());
  CHECK(runner.wants(Point::Logits, -1));
  handle->remove();
  CHECK(runner.freeze());
}
