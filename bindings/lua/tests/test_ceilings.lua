local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"

local MIB = 1 << 20

TestCeilings = {}

function TestCeilings.test_limits_are_measured()
  local ceilings = infinilm.Ceilings(MIB)
  lu.assertTrue(ceilings:read_gbs() > 0)
  local peak = ceilings:peak "float32"
  lu.assertTrue(peak.gflops > 0)
  lu.assertNotEquals(peak.instruction, "")
end

function TestCeilings.test_what_they_refuse()
  support.assert_kind("ValueError", "at least 1048576 bytes to read, found 1048575", infinilm.Ceilings, MIB - 1)
  support.assert_kind("ValueError", "negative", infinilm.Ceilings, -1)
  local ceilings = infinilm.Ceilings(MIB)
  support.assert_kind("ValueError", "float16", ceilings.peak, ceilings, "float16")
end

support.run()
