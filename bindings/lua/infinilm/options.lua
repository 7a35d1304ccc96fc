-- Tables of options: a name that nobody knows is an error, not an option without effect.
local engine = require "infinilm.engine"
engine.internal()

local options = {}

--- A set of the names in a text.
function options.names(text)
  local set = {}
  for name in text:gmatch "%S+" do set[name] = true end
  return set
end

--- The table that was given to `call`, or an empty one; an error if it is none or has a name outside of the sets.
function options.read(call, given, ...)
  if given == nil then return {} end
  if type(given) ~= "table" then
    engine.fail("TypeError", call .. ": options must be a table, not " .. (engine.type(given) or type(given)))
  end
  for name in pairs(given) do
    local known = false
    for _, set in ipairs { ... } do known = known or set[name] end
    if not known then engine.fail("TypeError", call .. " has no option " .. tostring(name)) end
  end
  return given
end

return options
