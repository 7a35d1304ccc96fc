-- LlamaConfig and GenerationConfig: constructors with fields by name, comparison, text, rope_scaling as a table.
local engine = require "infinilm.engine"
engine.internal()
local json = require "infinilm.json"

local configs = {}

local function with_fields(config, fields)
  if fields == nil then return config end
  if type(fields) ~= "table" then
    engine.fail("TypeError", "fields must be a table, not " .. type(fields))
  end
  for name, value in pairs(fields) do config[name] = value end
  return config
end

-- Config { field = value }, Config.from_json(text) and the others.
local function class(name)
  local raw, statics = engine[name], {}
  for key, value in pairs(raw) do statics[key] = value end
  statics.new = nil
  --- As from_json, of a table.
  function statics.from_table(fields) return raw.from_json(json.encode(fields)) end
  return setmetatable(statics, {
    __call = function(_, fields) return with_fields(raw.new(), fields) end,
    __name = "infinilm." .. name,
  })
end

local function describe(name)
  return {
    methods = {
      --- All fields in a table, as to_json writes them.
      totable = function(config) return json.decode(config:to_json()) end,
    },
    metamethods = {
      __eq = function(a, b) return engine.type(a) == name and engine.type(b) == name and a:equals(b) end,
      __tostring = function(config) return name .. " " .. config:to_json() end,
    },
  }
end

local llama = describe "LlamaConfig"
llama.getters = {
  rope_scaling = function(config) return json.decode(config:rope_scaling_json()) end,
}
llama.setters = {
  rope_scaling = function(config, value)
    if value ~= nil and type(value) ~= "table" then
      engine.fail("TypeError", "rope_scaling must be a table or nil, not " .. type(value))
    end
    config:set_rope_scaling_json(json.encode(value))
  end,
}
engine.extend("LlamaConfig", llama)
engine.extend("GenerationConfig", describe "GenerationConfig")

configs.LlamaConfig = class "LlamaConfig"
configs.GenerationConfig = class "GenerationConfig"
return configs
