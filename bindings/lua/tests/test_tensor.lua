local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"

TestTensor = {}

function TestTensor.test_what_it_is()
  local tensor = infinilm.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
  lu.assertEquals(tensor.shape, { 2, 3 })
  lu.assertEquals(tensor.strides, { 12, 4 })
  lu.assertEquals({ tensor.dtype, tensor.ndim, tensor.nbytes, tensor:numel(), #tensor }, { "float32", 2, 24, 6, 2 })
  lu.assertEquals(tostring(tensor), "Tensor(shape=(2, 3), dtype=float32, device=cpu)")
  lu.assertEquals(tostring(tensor.device), "cpu")
  lu.assertTrue(tensor.device == infinilm.Device "cpu")
  lu.assertEquals(infinilm.type(tensor), "Tensor")
  lu.assertIsNil(infinilm.type {})
  lu.assertEquals(infinilm.tensor(7).shape, {})
  lu.assertEquals(infinilm.tensor(7):item(), 7)
end

function TestTensor.test_views_share_the_memory()
  local tensor = infinilm.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
  local view = tensor:view()
  view[2][3] = 60.5
  view[1] = { 7, 8, 9 }
  lu.assertEquals(tensor:totable(), { { 7, 8, 9 }, { 4, 5, 60.5 } })
  lu.assertEquals(tensor:reshape({ 3, 2 }):view()[3][2], 60.5)
  view:fill(1.5)
  lu.assertEquals(view:totable(), { { 1.5, 1.5, 1.5 }, { 1.5, 1.5, 1.5 } })
  view[2]:assign { 1, 2, 3 }
  lu.assertEquals(tensor:view()[2]:totable(), { 1, 2, 3 })
  local copy = tensor:clone()
  copy:view():fill(0)
  lu.assertEquals(view[2][3], 3)
end

function TestTensor.test_pairs()
  local sum, rows = 0, {}
  for i, row in pairs(infinilm.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):view()) do
    rows[#rows + 1] = i
    for j, x in pairs(row) do sum = sum + 10 ^ j * x end
  end
  lu.assertEquals({ sum, rows }, { 9750, { 1, 2 } })
  for _ in pairs(infinilm.empty({ 0 }, "float32"):view()) do lu.fail "there are no elements" end
end

function TestTensor.test_every_index_is_checked()
  local view = infinilm.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):view()
  for _, i in ipairs { 0, 3, -1, math.maxinteger, math.mininteger } do
    support.assert_kind("IndexError", "1 to 2", function() return view[i] end)
    support.assert_kind("IndexError", "1 to 2", function() view[i] = { 1, 2, 3 } end)
  end
  support.assert_kind("IndexError", "1 to 3", function() view[1][4] = 0 end)
  support.assert_kind("TypeError", "index", function() return view[1.5] end)
  support.assert_kind("AttributeError", "fill", function() return view.fil end)
  support.assert_kind("ValueError", "expected 3 values", function() view[1] = { 1, 2 } end)
  support.assert_kind("TypeError", "element of float32", function() view[1][1] = "1" end)
  support.assert_kind("TypeError", "a sequence here", function() view[1] = 0 end)
  support.assert_kind("TypeError", "holes or other keys", function() view[1] = { 1, 2, 3, x = 4 } end)
end

function TestTensor.test_a_view_outlives_its_tensor()
  local view = infinilm.tensor({ 1, 2, 3 }):view()
  support.collect()
  lu.assertEquals(view:totable(), { 1, 2, 3 })
  local tensor = infinilm.tensor { 4 }
  view = tensor:view()
  tensor:close()
  lu.assertEquals(view[1], 4)
  support.assert_kind("RuntimeError", "closed", tensor.view, tensor)
end

function TestTensor.test_dtypes()
  for _, dtype in ipairs { "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64" } do
    local tensor = infinilm.tensor({ 1, 2, 100 }, dtype)
    lu.assertEquals(tensor:totable(), { 1, 2, 100 })
    lu.assertEquals(math.type(tensor:view()[1]), "integer")
  end
  lu.assertEquals(infinilm.tensor({ 0.1, 2 }, "float64"):totable(), { 0.1, 2 })
  lu.assertEquals(infinilm.tensor({ true, false }, "bool"):totable(), { true, false })
  support.assert_kind("OverflowError", "300", infinilm.tensor, { 300 }, "int8")
  support.assert_kind("ValueError", "negative", infinilm.tensor, { -1 }, "uint8")
  support.assert_kind("TypeError", "can only be read", infinilm.tensor, { 1 }, "bfloat16")
  support.assert_kind("ValueError", "expected 2 values", infinilm.tensor, { { 1, 2 }, { 3 } })
end

function TestTensor.test_weights_of_16_bits_are_read_exactly()
  local model = support.sample_model()
  local weight = model:get_parameter "model.norm.weight"
  lu.assertEquals(weight.dtype, "bfloat16")
  local values = weight:totable()
  lu.assertEquals(#values, 192)
  for _, value in ipairs(values) do -- bfloat16: eight bits of a float32's fraction
    lu.assertEquals(string.pack("<f", value):byte(1), 0)
    lu.assertEquals(string.pack("<f", value):byte(2), 0)
  end
  local path = os.tmpname()
  local half = infinilm.tensor({ 0x3C00, 0xC000, 0x0001, 0x7C00 }, "uint16") -- 1, -2, 2^-24, inf
  infinilm.save_safetensors(path, { x = half }, { note = "16 bits" })
  lu.assertEquals(infinilm.safetensors_metadata(path), { note = "16 bits" })
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "a"
  file:close()
  file = assert(io.open(path, "wb"))
  file:write((bytes:gsub('"U16"', '"F16"')))
  file:close()
  local halves = infinilm.load_safetensors(path).x
  os.remove(path)
  lu.assertEquals(halves.dtype, "float16")
  lu.assertEquals(halves:totable(), { 1.0, -2.0, 2.0 ^ -24, math.huge })
  lu.assertTrue(halves.read_only)
  support.assert_kind("ValueError", "read-only", function() halves:view():fill(0) end)
end

function TestTensor.test_devices()
  support.assert_kind("ValueError", "gpu", infinilm.Device, "gpu")
  lu.assertEquals(infinilm.Device("cpu").type, "cpu")
  local tensor = infinilm.tensor { 1 }
  support.assert_kind("RuntimeError", "CUDA", tensor.to, tensor, "cuda")
  lu.assertEquals(tensor:to("cpu", true):totable(), { 1 })
  support.assert_kind("AttributeError", "read-only", function() tensor.shape = {} end)
end

support.run()
