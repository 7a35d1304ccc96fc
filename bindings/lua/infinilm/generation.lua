-- model:generate and model:stream.
local engine = require "infinilm.engine"
engine.internal()
local options_of = require "infinilm.options"

local generation = {}

local FIELDS = options_of.names [[max_new_tokens max_length do_sample temperature top_k top_p min_p repetition_penalty
  presence_penalty frequency_penalty seed eos_token_id pad_token_id stop_token_ids use_cache logprobs prompt_logprobs]]
local STREAM = options_of.names "logits_processor cache generation_config"
local GENERATE = options_of.names "logits_processor cache generation_config on_token"

local function apply(config, options)
  if options.do_sample and options.temperature == 0 then
    engine.fail("ValueError", "do_sample = true contradicts temperature = 0, which is greedy")
  end
  if options.max_length and not options.max_new_tokens then
    config.max_new_tokens = nil -- the file's, which would beat what the caller asks for
  end
  for name, value in pairs(options) do
    if FIELDS[name] then config[name] = value end
  end
  if options.temperature == 0 then
    config.do_sample = false
  elseif options.do_sample == nil then
    local sampling = options.temperature or options.top_k or options.top_p or options.min_p
    if sampling then config.do_sample = true end
  end
  config:check()
end

local function processors_for(given, count)
  if given == nil then return {} end
  if type(given) == "table" and not getmetatable(given) then return given end
  local each = {}
  for i = 1, count do each[i] = given end
  return each
end

local function read_prompts(prompt)
  local one = type(prompt) ~= "table" or type(prompt[1]) ~= "table"
  if not one then return prompt, false end
  if math.type(prompt) == "integer" then prompt = { prompt } end
  return { prompt }, true
end

-- A generation and a function that runs one step: `each(id, i)` hears the new tokens and may return false to end sequence i.
local function start(model, prompts, options)
  local config = (options.generation_config or model:generation_config()):copy()
  apply(config, options)
  local processors = processors_for(options.logits_processor, #prompts)
  local run = engine.Generation.new(model, prompts, config, processors, options.cache)
  local kept = engine.kept(run) -- the core's objects hold neither the functions nor the model's registry
  kept.model, kept.processors = model, processors

  local seen = {}
  for i = 1, #prompts do seen[i] = run:prompt_length(i - 1) end
  local function step(each)
    run:step()
    for i = 1, each and #prompts or 0 do
      for _, id in ipairs(run:tokens_from(i - 1, seen[i])) do
        seen[i] = seen[i] + 1
        if each(id, i) == false then run:finish(i - 1, "stop") end
      end
    end
  end
  return run, step
end

local function details(run, i)
  return {
    finish_reason = run:finish_reason(i),
    logprobs = run:logprobs(i),
    prompt_logprobs = run:prompt_logprobs(i),
  }
end

--- Continues a prompt of ids (or several, in a table of tables) and returns prompt and continuation in the same form, then
--- a table with finish_reason, logprobs and prompt_logprobs (one for each prompt).
--- options: the fields of GenerationConfig; on_token(id, i), which may return false to end sequence i; logits_processor(ids,
--- logits); cache; generation_config.
function generation.generate(model, prompt, options)
  options = options_of.read("generate", options, FIELDS, GENERATE)
  local prompts, one = read_prompts(prompt)
  local on_token = options.on_token
  if on_token ~= nil and not engine.is_callable(on_token) then
    engine.fail("TypeError", "on_token must be a function or nil, not " .. type(on_token))
  end
  local run, step = start(model, prompts, options)
  while not run:done() do step(on_token) end
  if one then return run:tokens(0), details(run, 0) end
  local sequences, all = {}, {}
  for i = 1, #prompts do
    sequences[i], all[i] = run:tokens(i - 1), details(run, i - 1)
  end
  return sequences, all
end

--- `for id in model:stream(prompt, options) do`: the continuation of one prompt, id by id, as it is computed.
function generation.stream(model, prompt, options)
  options = options_of.read("stream", options, FIELDS, STREAM)
  local prompts, one = read_prompts(prompt)
  if not one then engine.fail("ValueError", "stream takes one prompt: call it once for each") end
  local run, step = start(model, prompts, options)
  local new
  return function()
    if run:done() then return nil end
    step(function(id) new = id end)
    return new
  end
end

return generation
