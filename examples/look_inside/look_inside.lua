-- Generates, captures an MLP and silences it: the same in Python, Lua and Java.
-- Usage: lua look_inside.lua DIRECTORY
local infinilm = require "infinilm"

local PROMPT = { 1, 20, 300, 7, 45 }

local model = infinilm.load(arg[1])
print("generated " .. table.concat(model:generate(PROMPT, { max_new_tokens = 8 }), " "))

local function five_logits()
  local logits = model:forward(PROMPT):view()
  local texts = {}
  for i = 1, 5 do texts[i] = ("%.5f"):format(logits[#PROMPT][i]) end
  return table.concat(texts, " ")
end

print("plain     " .. five_logits())

local captured

local function capture_and_silence(_, tensor)
  captured = tensor:clone()
  tensor:view():fill(0)
end

local registry = infinilm.HookRegistry()
local handle = registry:register_hook("layer1_mlp", capture_and_silence)
model:set_hook_registry(registry)
print("silenced  " .. five_logits())
print(("captured  %s %.5f %d"):format(table.concat(captured.shape, " "), captured:view()[1][1], handle.calls))
