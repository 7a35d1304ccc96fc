local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"
local PROMPT = { 1, 20, 300 }

local function live()
  support.collect()
  return infinilm.live_objects()
end

TestLifetime = {}

function TestLifetime.test_ten_thousand_hook_calls_leave_nothing()
  local before = live()
  do
    local model, registry = support.sample_model(), infinilm.HookRegistry()
    model:set_hook_registry(registry)
    local calls = 0
    registry:register_hook("layer#_*", function(_, tensor) calls = calls + tensor.shape[1] // 3 end)
    model:forward(PROMPT)
    local memory = live().buffers
    local lua = collectgarbage "count"
    while calls < 10000 do model:forward(PROMPT) end
    lu.assertTrue(live().buffers < memory + 200)
    lu.assertTrue(collectgarbage "count" < lua + 50)
  end
  lu.assertEquals(live(), before)
end

function TestLifetime.test_ten_thousand_errors_leave_nothing()
  local before = live()
  do
    local model, registry = support.sample_model(), infinilm.HookRegistry()
    model:set_hook_registry(registry)
    registry:register_hook("embed_tokens", function() error {} end)
    pcall(model.forward, model, PROMPT)
    support.collect()
    local lua = collectgarbage "count"
    for _ = 1, 10000 do assert(not pcall(model.forward, model, PROMPT)) end
    support.collect()
    lu.assertTrue(collectgarbage "count" < lua + 50)
  end
  lu.assertEquals(live(), before)
end

function TestLifetime.test_cycles_are_collected()
  local before = live()
  do
    local model, registry = support.sample_model(), infinilm.HookRegistry()
    registry:register_hook("layer0_mlp", function() return registry, model end)
    model:set_hook_registry(registry)
    model:forward(PROMPT)
  end
  lu.assertEquals(live(), before)
end

function TestLifetime.test_functions_go_with_their_registration()
  local registry = infinilm.HookRegistry()
  local watched = setmetatable({}, { __mode = "k" })
  local function watch()
    local callback = function() return registry end
    watched[callback] = true
    return callback
  end
  local handle = registry:register_hook("logits", watch())
  support.collect()
  lu.assertNotNil(next(watched))
  registry:register_hook("logits", watch()) -- replaces the first
  handle:remove() -- inert
  support.collect()
  local left = 0
  for _ in pairs(watched) do left = left + 1 end
  lu.assertEquals(left, 1)
  registry:clear()
  support.collect()
  lu.assertIsNil(next(watched))
end

function TestLifetime.test_a_model_keeps_its_registry()
  local model, calls = support.sample_model(), 0
  do
    local registry = infinilm.HookRegistry()
    registry:register_hook("logits", function() calls = calls + 1 end)
    model:set_hook_registry(registry)
  end
  support.collect()
  model:generate(PROMPT, { max_new_tokens = 2 })
  lu.assertEquals(calls, 2)
  lu.assertEquals(model:hook_registry():names(), { "logits" })
end

function TestLifetime.test_closing()
  local before = live()
  do
    local model <close> = support.sample_model()
    lu.assertEquals(infinilm.live_objects().models, before.models + 1)
  end
  lu.assertEquals(infinilm.live_objects().models, before.models) -- without the collector
  local model = support.sample_model()
  model:close()
  model:close()
  support.assert_kind("RuntimeError", "closed", model.forward, model, PROMPT)
  support.assert_kind("RuntimeError", "closed", function() return model:config() end)
end

function TestLifetime.test_what_is_at_work_cannot_be_closed()
  local model, registry, cache = support.sample_model(), infinilm.HookRegistry(), nil
  cache = model:new_cache()
  model:set_hook_registry(registry)
  local refused = 0
  registry:register_hook("layer0_mlp", function(_, tensor)
    for _, object in ipairs { model, registry, cache } do
      support.assert_kind("RuntimeError", "callback", object.close, object)
      refused = refused + 1
    end
    tensor:close()
  end)
  model:forward(PROMPT, { cache = cache })
  lu.assertEquals(refused, 3)
end

function TestLifetime.test_objects_of_others_are_refused()
  local config = infinilm.LlamaConfig()
  support.assert_kind("TypeError", "colon", config.check, io.stdout)
  support.assert_kind("TypeError", "colon", config.check)
  support.assert_kind("TypeError", "colon", config.check, nil)
  support.assert_kind("TypeError", "none of infinilm's", config.equals, config, io.stdout)
  support.assert_kind("TypeError", "LlamaConfig", config.equals, config, infinilm.tensor { 1 })
  support.assert_kind("TypeError", "LlamaConfig", config.equals, config, infinilm.tensor({ 1 }):view())
  support.assert_kind("TypeError", "LlamaConfig", config.check, infinilm.tensor { 1 })
  lu.assertEquals(getmetatable(config), false)
end

support.run()
