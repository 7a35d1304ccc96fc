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

function TestHooks:test_a_capture_keeps_values_without_a_closure()
  local capture = self.registry:capture("layer#_mlp")
  model:forward(PROMPT)
  model:forward(PROMPT)
  local values = capture:take()
  lu.assertEquals({ #values, values[1].name, values[8].layer_idx, capture.calls }, { 8, "layer0_mlp", 3, 8 })
  lu.assertEquals(values[1]:tensor():totable(), values[5]:tensor():totable())
  lu.assertEquals(values[5]:step().step - values[1]:step().step, 1)
  lu.assertEquals(#capture:values(), 0)
  capture:remove()
  model:forward(PROMPT)
  lu.assertEquals({ #capture:values(), capture.active, self.registry:has_hooks() }, { 0, false, false })
  lu.assertErrorMsgContains("a capture needs a name", self.registry.capture, self.registry, "")
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
  local tensors, views, values = {}, {}, {}
  self.registry:register_hook("layer#_output", function(_, tensor)
    local i = #values + 1
    tensors[i], views[i], values[i] = tensor, tensor:view(), tensor:totable()
  end)
  -- What the next layer's input is, in memory of its own: writing there must not reach back.
  self.registry:register_hook("layer#_input", function(_, tensor) tensor:view():fill(0.5) end)
  for _, ids in ipairs { PROMPT, { 9, 8, 7 }, PROMPT } do
    model:forward(ids)
    support.collect()
  end
  tensors[1]:close() -- its view has a share of its own
  lu.assertEquals(#values, 3 * model:config().num_hidden_layers)
  for i, expected in ipairs(values) do
    lu.assertEquals(views[i]:totable(), expected)
    if i > 1 then lu.assertEquals(tensors[i]:totable(), expected) end
  end
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

function TestHooks:test_a_forward_inside_of_itself()
  local plain, cache, inner = model:forward(PROMPT):totable(), model:new_cache(), nil
  self.registry:register_hook("layer0_mlp", function()
    if inner then return end -- the inner one's own hook
    inner = {}
    support.assert_kind("RuntimeError", "in use", model.forward, model, PROMPT, { cache = cache })
    inner = model:forward(PROMPT):totable()
  end)
  lu.assertEquals(model:forward(PROMPT, { cache = cache }):totable(), plain)
  lu.assertEquals(inner, plain)
  lu.assertEquals(cache:length(), #PROMPT)

  self.registry:register_hook("layer0_mlp", function() model:forward(PROMPT) end)
  lu.assertErrorMsgContains("stack overflow", model.forward, model, PROMPT)
  self.registry:clear()
  lu.assertEquals(model:forward(PROMPT):totable(), plain) -- still usable
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
