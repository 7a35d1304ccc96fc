local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"
local PROMPT = support.PROMPT

local model = support.sample_model()

TestModel = {}

function TestModel.test_forward()
  local logits = model:forward(PROMPT)
  lu.assertEquals(logits.shape, { 5, 1024 })
  lu.assertEquals(model:forward({ PROMPT, PROMPT }).shape, { 2, 5, 1024 })
  lu.assertEquals(model:forward(PROMPT, { logits_to_keep = 1 }):totable()[1], logits:totable()[5])
end

function TestModel.test_a_cache_continues()
  local cache = model:new_cache()
  model:forward({ 1, 20 }, { cache = cache })
  lu.assertEquals(cache:length(), 2)
  local continued = model:forward({ 300, 7, 45 }, { cache = cache }):totable()
  local whole = model:forward(PROMPT):totable()
  lu.assertEquals(continued[3], whole[5])
  lu.assertEquals(cache:tokens(), PROMPT)
end

function TestModel.test_generate_is_greedy_and_heard()
  local heard = {}
  local tokens, details = model:generate(PROMPT, {
    max_new_tokens = 6,
    logprobs = true,
    on_token = function(id, i) heard[#heard + 1] = { id, i } end,
  })
  lu.assertEquals(#tokens, 11)
  lu.assertEquals(details.finish_reason, "length")
  lu.assertEquals(#details.logprobs, 6)
  for i, pair in ipairs(heard) do lu.assertEquals(pair, { tokens[5 + i], 1 }) end
  local streamed = {}
  for id in model:stream(PROMPT, { max_new_tokens = 6 }) do streamed[#streamed + 1] = id end
  lu.assertEquals(streamed, table.move(tokens, 6, 11, 1, {}))
  local best, logits = 1, model:forward(PROMPT):totable()[5]
  for i, value in ipairs(logits) do
    if value > logits[best] then best = i end
  end
  lu.assertEquals(tokens[6], best - 1)
end

function TestModel.test_several_prompts_of_different_lengths()
  local sequences, details = model:generate({ PROMPT, { 1, 9 } }, { max_new_tokens = 3 })
  lu.assertEquals(sequences[1], (model:generate(PROMPT, { max_new_tokens = 3 })))
  lu.assertEquals(sequences[2], (model:generate({ 1, 9 }, { max_new_tokens = 3 })))
  lu.assertEquals(#details, 2)
end

function TestModel.test_sampling_repeats_with_its_seed()
  local options = { max_new_tokens = 8, temperature = 1.5, seed = 11 }
  lu.assertEquals((model:generate(PROMPT, options)), (model:generate(PROMPT, options)))
end

function TestModel.test_on_token_can_stop()
  local tokens, details = model:generate(PROMPT, { max_new_tokens = 6, on_token = function() return false end })
  lu.assertEquals(#tokens, 6)
  lu.assertEquals(details.finish_reason, "stop")
end

function TestModel.test_logits_processors()
  local function only_five(tokens, logits)
    lu.assertEquals(tokens[1], 1)
    local view = logits:view()
    view:fill(-1e9)
    view[6] = 0.0 -- id 5
  end
  lu.assertEquals((model:generate({ 1, 2 }, { max_new_tokens = 2, logits_processor = only_five })), { 1, 2, 5, 5 })
  local both = model:generate({ { 1, 2 }, { 1, 3 } }, { max_new_tokens = 1, logits_processor = { only_five, false } })
  lu.assertEquals(both[1], { 1, 2, 5 })
  lu.assertErrorMsgEquals("mine", model.generate, model, PROMPT, { logits_processor = function() error("mine", 0) end })
end

function TestModel.test_wrong_input()
  support.assert_kind("IndexError", "1024", model.forward, model, { 1024 })
  support.assert_kind("TypeError", "int64", model.forward, model, { 1.5 })
  support.assert_kind("TypeError", "Tensor", model.forward, model, "text")
  support.assert_kind("ValueError", "", model.forward, model, {})
  support.assert_kind("ValueError", "2 values", model.forward, model, { { 1, 2 }, { 3 } })
  support.assert_kind("TypeError", "holes or other keys", model.forward, model, { 1, 2, x = 3 })
  support.assert_kind("TypeError", "forward has no option cach", model.forward, model, PROMPT, { cach = 1 })
  support.assert_kind("TypeError", "not KvCache", model.forward, model, PROMPT, model:new_cache())
  support.assert_kind("TypeError", "stream has no option on_token", model.stream, model, PROMPT, { on_token = print })
  support.assert_kind("TypeError", "on_token must be a function", model.generate, model, PROMPT, { on_token = 3 })
  support.assert_kind("TypeError", "not number", model.generate, model, PROMPT, 3)
  support.assert_kind("TypeError", "load has no option dtyp", infinilm.load, "/nowhere", { dtyp = "float32" })
  support.assert_kind("TypeError", "LlamaForCausalLM:get_parameter expects 2", model.get_parameter, model)
  support.assert_kind("TypeError", "no option max_tokens", model.generate, model, PROMPT, { max_tokens = 1 })
  support.assert_kind("ValueError", "top_p", model.generate, model, PROMPT, { top_p = 2.0 })
  support.assert_kind("TypeError", "max_new_tokens", model.generate, model, PROMPT, { max_new_tokens = "3" })
  support.assert_kind("TypeError", "none of infinilm's", model.forward, model, PROMPT, { cache = io.stdout })
  support.assert_kind("TypeError", "KvCache", model.forward, model, PROMPT, { cache = model })
  support.assert_kind("FileNotFoundError", "/nowhere", infinilm.load, "/nowhere")
  local found = support.assert_kind("TypeError", "", model.generate, model, PROMPT, { seed = "x" })
  lu.assertStrContains(found.where, "support.lua") -- the line of the call, not one of the binding's own
end

function TestModel.test_weights()
  local state = model:state_dict()
  local other = infinilm.LlamaForCausalLM(model:config())
  support.assert_kind("RuntimeError", "weights", other.forward, other, PROMPT)
  other:load_state_dict(state)
  lu.assertEquals(other:forward(PROMPT):totable(), model:forward(PROMPT):totable())
  local rounded = infinilm.LlamaForCausalLM(model:config(), { quantization = "int8", kv_cache_dtype = "int8" })
  rounded:load_state_dict(state)
  lu.assertEquals(rounded:forward(PROMPT):totable(),
    infinilm.load(os.getenv "INFINILM_SAMPLE_MODEL", { quantization = "int8", kv_cache_dtype = "int8" }):forward(PROMPT):totable())
  support.assert_kind("TypeError", "no option progress", infinilm.LlamaForCausalLM, model:config(), { progress = print })
  state["model.norm.weight"] = nil
  support.assert_kind("ValueError", "model.norm.weight", other.load_state_dict, other, state)
  support.assert_kind("KeyError", "model.norm.weight", model.get_parameter, model, "model.nrm.weight")
end

local function load(options) return infinilm.load(os.getenv "INFINILM_SAMPLE_MODEL", options) end

function TestModel.test_load_options()
  lu.assertEquals(tostring(model:quantization()), "none")
  local rounded = load {
    dtype = "float32", kv_cache_dtype = "int8", quantization = "int4", group_size = 64, activations = "int8" }
  local found = rounded:quantization()
  lu.assertEquals(tostring(found), "int4 in groups of 64, int8 activations")
  lu.assertEquals({ found.bits, found.group_size, found.int8_activations }, { 4, 64, true })
  lu.assertEquals(rounded:kv_cache_dtype(), "int8")
  lu.assertTrue(rounded:nbytes() < model:nbytes() / 2)
  lu.assertEquals(rounded:state_dict()["model.layers.0.mlp.up_proj.weight"].dtype, "float32")

  local exact = load({ dtype = "float32" }):forward(PROMPT):totable()
  local near = load({ dtype = "float32", quantization = "int8" }):forward(PROMPT):view()
  local wrong, size = 0, 0
  for i, row in ipairs(exact) do
    for j, x in ipairs(row) do wrong, size = math.max(wrong, math.abs(x - near[i][j])), math.max(size, math.abs(x)) end
  end
  lu.assertTrue(wrong > 0 and wrong < 0.1 * size, wrong)

  local whole = load { dtype = "float32", quantization = "int8", group_size = 1 << 40 } -- groups reach beyond the rows
  lu.assertEquals(whole:forward(PROMPT):totable(), near:totable())
  lu.assertEquals(whole:nbytes(), load({ dtype = "float32", quantization = "int8" }):nbytes())
  load { quantization = "int4", group_size = 1 << 62 }:forward(PROMPT)

  support.assert_kind("ValueError", "int3", load, { quantization = "int3" })
  support.assert_kind("ValueError", "33", load, { quantization = "int4", group_size = 33 })
  support.assert_kind("ValueError", "found 0", load, { quantization = "int4", group_size = 0 })
  support.assert_kind("ValueError", "activations", load, { activations = "int8" })
  support.assert_kind("TypeError", "name must be a string", load, { quantization = 4 })
  support.assert_kind("ValueError", "kv_cache_dtype", load, { kv_cache_dtype = "int64" })
end

function TestModel.test_progress()
  local last, all
  infinilm.load(os.getenv "INFINILM_SAMPLE_MODEL", { progress = function(done, total) last, all = done, total end })
  lu.assertTrue(all > 0)
  lu.assertEquals(last, all)
  lu.assertErrorMsgEquals("enough", infinilm.load, os.getenv "INFINILM_SAMPLE_MODEL",
    { progress = function() error("enough", 0) end })
end

support.run()
