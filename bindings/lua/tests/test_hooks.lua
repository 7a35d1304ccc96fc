local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"
local PROMPT = support.PROMPT

local model = support.sample_model()

TestHooks = {}

function TestHooks:setUp()
  self.registry = infinilm.HookRegistry()
  model:set_hook_registry(self.registry)
end

function TestHooks.tearDown() model:set_hook_registry(nil) end

function TestHooks:test_a_closure_hears_name_tensor_and_layer()
  local heard = {}
  local handle = self.registry:register_hook("layer1_mlp", function(name, tensor, layer)
    heard[#heard + 1] = { name, tensor.shape, layer, tensor.dtype }
  end)
  model:forward(PROMPT)
  lu.assertEquals(heard, { { "layer1_mlp", { 5, 192 }, 1, "float32" } })
  lu.assertEquals(handle.calls, 1)
  lu.assertEquals(handle.name, "layer1_mlp")
end

function TestHooks:test_globs_and_aliases()
  local names = {}
  local function note(name) names[#names + 1] = name end
  self.registry:register_hook("layer#_mlp", note)
  self.registry:register_hook("layer0_mlp_output", note)
  model:forward(PROMPT)
  lu.assertEquals(names, { "layer0_mlp", "layer0_mlp_output", "layer1_mlp", "layer2_mlp", "layer3_mlp" })
end

function TestHooks:test_prefix()
  local names = {}
  self.registry:register_hook("a_layer0_mlp", function(name) names[#names + 1] = name end)
  model:set_hook_registry(self.registry, "a")
  model:forward(PROMPT)
  lu.assertEquals(names, { "a_layer0_mlp" })
end

function TestHooks:test_writing_edits_the_computation()
  local plain = model:forward(PROMPT):totable()
  local handle = self.registry:register_hook("layer0_mlp", function(_, tensor) tensor:view():fill(0) end)
  local seen
  self.registry:register_hook("layer0_output", function(_, tensor) seen = tensor:totable() end)
  local before
  self.registry:register_hook("layer0_before_post_attention_layernorm", function(_, t) before = t:totable() end)
  lu.assertNotEquals(model:forward(PROMPT):totable(), plain)
  lu.assertEquals(seen, before) -- the residual stream passed the silenced MLP unchanged
  handle:remove()
  lu.assertEquals(model:forward(PROMPT):totable(), plain)
  lu.assertFalse(handle.active)
end

function TestHooks:test_hearing_changes_nothing()
  local plain = model:forward(PROMPT):totable()
  self.registry:register_hook("*", function() end)
  lu.assertEquals(model:forward(PROMPT, { logits_to_keep = 5 }):totable(), plain)
end

function TestHooks:test_kept_tensors_stay_as_they_were()
  local kept, texts = {}, {}
  self.registry:register_hook("layer#_output", function(_, tensor, layer)
    kept[layer], texts[layer] = tensor, tensor:totable()
  end)
  self.registry:register_hook("layer1_input", function(_, tensor) tensor:view():fill(0) end)
  model:forward(PROMPT)
  model:forward({ 9, 8, 7 })
  kept[1], texts[1] = nil, nil
  support.collect()
  model:forward(PROMPT)
  for layer, tensor in pairs(kept) do
    lu.assertEquals(#tensor, layer == 0 and 5 or #tensor)
  end
  self.registry:clear()
  local first, values
  self.registry:register_hook("layer0_output", function(_, tensor) first, values = tensor, tensor:totable() end)
  self.registry:register_hook("layer1_input", function(_, tensor) tensor:view():fill(0) end)
  model:forward(PROMPT)
  self.registry:clear()
  model:forward({ 3, 2, 1 })
  lu.assertEquals(first:totable(), values)
end

function TestHooks:test_an_error_arrives_as_itself()
  local mine = setmetatable({}, {})
  for _, value in ipairs { mine, "text", 42, false } do
    self.registry:register_hook("layer2_mlp", function() error(value, 0) end)
    local ok, found = pcall(model.forward, model, PROMPT)
    lu.assertFalse(ok)
    lu.assertTrue(rawequal(found, value))
    ok, found = pcall(model.generate, model, PROMPT, { max_new_tokens = 2 })
    lu.assertFalse(ok)
    lu.assertTrue(rawequal(found, value))
  end
  self.registry:clear()
  model:forward(PROMPT) -- still usable
end

function TestHooks:test_an_error_of_the_engine_inside_of_a_hook_arrives_too()
  self.registry:register_hook("layer0_mlp", function(_, tensor) return tensor:view()[6] end)
  support.assert_kind("IndexError", "1 to 5", model.forward, model, PROMPT)
end

function TestHooks:test_a_hook_may_run_the_model_and_change_the_registry()
  local other, inner = support.sample_model(), nil
  self.registry:register_hook("layer0_mlp", function()
    inner = other:forward(PROMPT):totable()
    self.registry:clear()
  end)
  self.registry:register_hook("layer1_mlp", function() error "cleared before" end)
  lu.assertEquals(model:forward(PROMPT):totable(), inner)
  lu.assertEquals(#self.registry, 0)
end

function TestHooks:test_in_a_coroutine()
  local thread = coroutine.wrap(function()
    self.registry:register_hook("layer0_mlp", function() coroutine.yield() end)
    local ok, found = pcall(model.forward, model, PROMPT)
    coroutine.yield(ok, found)
  end)
  local ok, found = thread()
  lu.assertFalse(ok)
  lu.assertStrContains(found, "yield across a C-call boundary")
  thread = nil
  support.collect() -- the coroutine that registered is gone; its hook is not
  self.registry:clear()
  local calls = 0
  coroutine.wrap(function() self.registry:register_hook("layer0_mlp", function() calls = calls + 1 end) end)()
  support.collect()
  model:forward(PROMPT)
  lu.assertEquals(calls, 1)
end

function TestHooks:test_registering()
  support.assert_kind("TypeError", "callback must be a function", self.registry.register_hook, self.registry, "logits", 3)
  support.assert_kind("ValueError", "empty", self.registry.register_hook, self.registry, "", print)
  local calls = 0
  local callable = setmetatable({}, { __call = function() calls = calls + 1 end })
  local first = self.registry:register_hook("logits", callable)
  local second = self.registry:register_hook("logits", callable)
  model:forward(PROMPT)
  lu.assertEquals({ calls, first.calls, second.calls, #self.registry }, { 1, 0, 1, 1 })
  lu.assertEquals(self.registry:names(), { "logits" })
  self.registry:call_hook("logits", infinilm.tensor { 1 }, 3)
  lu.assertEquals(calls, 2)
end

function TestHooks:test_a_name_without_a_point_warns()
  local texts = {}
  infinilm.set_warning_handler(function(text, where) texts[#texts + 1] = where .. text end)
  self.registry:register_hook("layr0_mlp", print)
  model:forward(PROMPT)
  lu.assertEquals(#texts, 1)
  lu.assertStrContains(texts[1], "test_hooks.lua")
  lu.assertStrContains(texts[1], '"layer0_mlp"')
  infinilm.set_warning_handler(function() error("as an error", 0) end)
  self.registry:register_hook("layr1_mlp", print)
  lu.assertErrorMsgEquals("as an error", model.forward, model, PROMPT)
end

function TestHooks:test_current_step()
  local step
  self.registry:register_hook("layer0_mlp", function() step = infinilm.current_step() end)
  model:forward(PROMPT)
  lu.assertEquals(step.sequences[1].rows, 5)
  lu.assertEquals(step.sequences[1].position, 0)
  support.assert_kind("RuntimeError", "hook", infinilm.current_step)
end

function TestHooks.test_points_are_listed()
  local points = model:hook_points()
  lu.assertEquals(points[1].name, "embed_tokens")
  lu.assertEquals(#infinilm.hook_points(model:config(), "p"), #points)
  lu.assertEquals(infinilm.hook_points(model:config(), "p")[1].name, "p_embed_tokens")
  lu.assertEquals(type(infinilm.hook_point_table()[1].aliases), "table")
end

support.run()
