-- What the tests share.
local infinilm = require "infinilm"
local lu = require "luaunit"

local support = { PROMPT = { 1, 20, 300, 7, 45 } }

function support.sample_model() return infinilm.load(assert(os.getenv "INFINILM_SAMPLE_MODEL")) end

-- What `call` raises, which must be an error of the engine of that kind whose text contains `text`.
function support.assert_kind(kind, text, call, ...)
  local ok, found = pcall(call, ...)
  lu.assertFalse(ok, "expected " .. kind)
  lu.assertEquals(type(found) == "table" and found.kind or found, kind)
  lu.assertStrContains(tostring(found), text)
  return found
end

function support.collect()
  for _ = 1, 3 do collectgarbage() end
end

function support.run() os.exit(lu.LuaUnit.run(), true) end -- closes the state: finalisers run

return support
