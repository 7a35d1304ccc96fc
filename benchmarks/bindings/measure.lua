-- Nanoseconds of small calls in Lua. Prints JSON.
local infinilm = require "infinilm"

local COUNT <const>, REPEATS <const> = 100000, 9

local function timed(body)
  local best = math.huge
  for _ = 1, REPEATS do
    local begin = os.clock()
    body()
    best = math.min(best, os.clock() - begin)
  end
  return best * 1e9 / COUNT
end

local config, registry = infinilm.LlamaConfig(), infinilm.HookRegistry()
local tensor = infinilm.empty(1024)
registry:register_hook("point", function() end)
local values = tensor:view()

local loop = timed(function() for _ = 1, COUNT do end end)
local bodies = {
  attribute = function() for _ = 1, COUNT do local _ = config.hidden_size end end,
  callback = function() for _ = 1, COUNT do registry:call_hook("point", tensor, 0) end end,
  view = function() for _ = 1, COUNT do local _ = tensor:view() end end,
  element = function() for _ = 1, COUNT do local _ = values[6] end end,
}
local parts = {}
for name, body in pairs(bodies) do parts[#parts + 1] = ('"%s": %.2f'):format(name, timed(body) - loop) end
print("{" .. table.concat(parts, ", ") .. "}")
