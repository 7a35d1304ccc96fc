local infinilm = require "infinilm"
local lu = require "luaunit"
local support = require "support"

TestConfig = {}

function TestConfig.test_defaults_are_those_of_the_contract()
  local config = infinilm.LlamaConfig()
  lu.assertEquals(config.hidden_size, 4096)
  lu.assertEquals(config.rope_theta, 10000.0)
  lu.assertEquals(config.bos_token_id, { 1 })
  lu.assertEquals(config.eos_token_id, { 2 })
  lu.assertEquals(config.dtype, infinilm.DataType.F32)
  lu.assertIsNil(config.sliding_window)
  lu.assertIsTrue(config.attention_bias)
  lu.assertIsTrue(config:validate())
end

function TestConfig.test_fields_by_name()
  local config = infinilm.LlamaConfig { hidden_size = 64, num_attention_heads = 4, dtype = "bfloat16" }
  lu.assertEquals(config.head_dim, 16)
  lu.assertEquals(config.dtype, "bfloat16")
  lu.assertEquals(config:totable().hidden_size, 64)
end

function TestConfig.test_token_ids_are_one_or_several()
  local config = infinilm.LlamaConfig()
  for value, expected in pairs {
    [7] = { 7 },
    [{ 1, 2, 3 }] = { 1, 2, 3 },
    [{}] = {},
    [math.maxinteger] = { math.maxinteger },
  } do
    config.eos_token_id = value
    lu.assertEquals(config.eos_token_id, expected)
  end
end

function TestConfig.test_what_is_no_token_id_is_refused_and_changes_nothing()
  local config = infinilm.LlamaConfig { eos_token_id = { 5, 6 } }
  for _, value in ipairs { true, 2.5, 2.0, "2", { 1, "2" }, { 1, 2.0 }, { 1, { 2 } }, { 1, nil, 3 }, { id = 1 } } do
    support.assert_kind("TypeError", "eos_token_id", function() config.eos_token_id = value end)
  end
  support.assert_kind("TypeError", "eos_token_id[2]", function() config.eos_token_id = { 1, false } end)
  support.assert_kind("TypeError", "not nil", function() config.eos_token_id = nil end)
  lu.assertEquals(config.eos_token_id, { 5, 6 })
end

function TestConfig.test_fields_are_strict()
  local config = infinilm.LlamaConfig()
  support.assert_kind("TypeError", "hidden_size must be an integer, not float", function() config.hidden_size = 64.0 end)
  support.assert_kind("TypeError", "not boolean", function() config.hidden_size = true end)
  support.assert_kind("ValueError", "negative", function() config.hidden_size = -1 end)
  support.assert_kind("TypeError", "use_cache must be a boolean", function() config.use_cache = 1 end)
  support.assert_kind("TypeError", "rope_theta must be a number", function() config.rope_theta = "1" end)
  support.assert_kind("ValueError", "float12", function() config.dtype = "float12" end)
  lu.assertEquals(config.hidden_size, 4096)
end

function TestConfig.test_unknown_fields_name_the_nearest()
  local config = infinilm.LlamaConfig()
  support.assert_kind("AttributeError", '"hidden_size"', function() config.hiden_size = 1 end)
  support.assert_kind("AttributeError", '"hidden_size"', function() return config.hiden_size end)
  support.assert_kind("AttributeError", "vocab_size", infinilm.LlamaConfig, { vocab_sise = 1 })
end

function TestConfig.test_optional_fields_take_nil()
  local config = infinilm.LlamaConfig { sliding_window = 8, pad_token_id = 0 }
  lu.assertEquals(config.sliding_window, 8)
  config.sliding_window = nil
  lu.assertIsNil(config.sliding_window)
  lu.assertEquals(config.pad_token_id, 0)
end

function TestConfig.test_check_lists_what_is_violated()
  local config = infinilm.LlamaConfig { hidden_size = 10, num_attention_heads = 3, num_key_value_heads = 2 }
  lu.assertIsFalse(config:validate())
  support.assert_kind("ValueError", "10", config.check, config)
end

function TestConfig.test_rope_scaling_is_a_table()
  local config = infinilm.LlamaConfig()
  lu.assertIsNil(config.rope_scaling)
  config.rope_scaling = { rope_type = "linear", factor = 2.5 }
  lu.assertEquals(config.rope_scaling.factor, 2.5)
  support.assert_kind("ValueError", "foo", function() config.rope_scaling = { rope_type = "foo" } end)
  support.assert_kind("TypeError", "rope_scaling", function() config.rope_scaling = 3 end)
  lu.assertEquals(config.rope_scaling.rope_type, "linear")
  config.rope_scaling = { rope_type = "longrope", factor = 2.0, original_max_position_embeddings = 32,
    short_factor = { 1.0, 1.5 }, long_factor = { 2.0, 3.0 } }
  lu.assertEquals(config.rope_scaling.long_factor, { 2.0, 3.0 })
  config.rope_scaling = nil
  lu.assertIsNil(config.rope_scaling)
end

function TestConfig.test_round_trips_and_equality()
  local config = infinilm.LlamaConfig { hidden_size = 64, eos_token_id = { 1, 2 }, name_or_path = "ä \"x\"\n C:\\u0041\\n\1f" }
  local same = infinilm.LlamaConfig.from_json(config:to_json())
  lu.assertTrue(same == config)
  lu.assertFalse(rawequal(same, config))
  lu.assertEquals(same.name_or_path, config.name_or_path)
  lu.assertEquals(infinilm.LlamaConfig.from_table(config:totable()), config)
  lu.assertTrue(config:copy() == config)
  lu.assertFalse(config == infinilm.LlamaConfig())
  lu.assertFalse(config == infinilm.GenerationConfig())
  lu.assertEquals(infinilm.LlamaConfig.from_table(config:totable()).hidden_size, 64)
end

function TestConfig.test_reads_huggingface()
  local config = infinilm.LlamaConfig.from_pretrained(os.getenv "INFINILM_SAMPLE_MODEL")
  lu.assertEquals(config.num_key_value_heads, 2)
  lu.assertEquals(config.dtype, "bfloat16")
  lu.assertEquals(config.eos_token_id, { 2 })
  lu.assertIsFalse(config.attention_bias)
  support.assert_kind("FileNotFoundError", "/nowhere", infinilm.LlamaConfig.from_pretrained, "/nowhere")
  support.assert_kind("ValueError", "JSON", infinilm.LlamaConfig.from_json, "{")
end

function TestConfig.test_generation_config()
  local config = infinilm.GenerationConfig { max_new_tokens = 4, seed = 7, stop_token_ids = 3 }
  lu.assertEquals(config.stop_token_ids, { 3 })
  lu.assertEquals(config.seed, 7)
  config.top_p = 2
  support.assert_kind("ValueError", "top_p", config.check, config)
end

support.run()
