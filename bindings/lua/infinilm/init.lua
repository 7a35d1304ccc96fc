--- Llama-family models from HuggingFace directories, with hooks on every intermediate tensor.
---
--- What is the model's counts from 0 (token ids, positions, layers, slots of a cache); what is Lua's counts from 1 (tables,
--- views of tensors). Errors of the engine are tables with `kind` ("ValueError", …), `message` and `where`; what a callback
--- raises arrives unchanged.
local engine = require "infinilm.engine"
engine.internal()
local configs = require "infinilm.configs"
local generation = require "infinilm.generation"
local options_of = require "infinilm.options"

local infinilm = {
  LlamaConfig = configs.LlamaConfig,
  GenerationConfig = configs.GenerationConfig,
  DataType = engine.data_types(), -- DataType.BF16 == "bfloat16"
  Ceilings = engine.Ceilings.new, -- the machine's limits, measured
  Device = engine.Device.new,
  HookRegistry = engine.HookRegistry.new,
  tensor = engine.tensor, -- tensor({{1, 2}, {3, 4}}, "float32")
  type = engine.type, -- "Tensor", "LlamaConfig", … or nil
  set_warning_handler = engine.set_warning_handler, -- function(text, where)
}
for _, name in ipairs {
  "available_cpu_levels", "cpu_level", "current_step", "glob_match", "hook_point_table", "hook_points",
  "is_glob", "live_objects", "load_checkpoint", "load_safetensors", "num_threads", "parameters",
  "safetensors_metadata", "save_safetensors", "set_num_threads", "version",
} do
  infinilm[name] = engine[name]
end

-- Lua's own warn() is silent by default, and a hook that never fires must not go unnoticed.
engine.set_warning_handler(function(text, where)
  io.stderr:write(where, "infinilm warning: ", text, "\n")
end)

engine.extend("Tensor", {
  methods = {
    view = engine.view, -- the elements: t:view()[i][j]
    totable = engine.totable, -- a copy of them in tables
    item = function(tensor)
      if tensor:numel() ~= 1 then
        engine.fail("ValueError", "item expects one element, found " .. tensor:numel())
      end
      return engine.totable(tensor:reshape({}))
    end,
  },
  metamethods = {
    __tostring = function(tensor) return tensor:str() end,
    __len = function(tensor) return tensor.shape[1] or 0 end,
  },
})
infinilm.empty = engine.Tensor.empty -- empty(shape, dtype)

engine.extend("Device", {
  metamethods = {
    __tostring = function(device) return device:str() end,
    __eq = function(a, b)
      return engine.type(a) == "Device" and engine.type(b) == "Device" and a:equals(b)
    end,
  },
})
engine.extend("Quantization", {
  metamethods = { __tostring = function(quantization) return quantization:str() end },
})
engine.extend("HookRegistry", { metamethods = { __len = function(registry) return registry:size() end } })

local forward = engine.LlamaForCausalLM.methods.forward
local set_hook_registry = engine.LlamaForCausalLM.methods.set_hook_registry

local FORWARD = options_of.names "cache logits_to_keep"
local PLACING = options_of.names "device kv_cache_dtype quantization group_size activations"
local LOAD = options_of.names "dtype progress"

local function rounding(options)
  if options.group_size == 0 then
    engine.fail("ValueError", "group_size: expected a multiple of 32, or nil for the usual, found 0")
  end
  return engine.Quantization.new(options.quantization or "", options.group_size or 0, options.activations or "")
end

local function as_ids(ids)
  if math.type(ids) == "integer" then ids = { ids } end
  return type(ids) == "table" and engine.tensor(ids, "int64") or ids
end

engine.extend("LlamaForCausalLM", {
  methods = {
    --- Logits, float32 [tokens, V] or [batch, tokens, V]. options: cache, logits_to_keep.
    forward = function(model, input_ids, options)
      options = options_of.read("forward", options, FORWARD)
      return forward(model, as_ids(input_ids), options.cache, options.logits_to_keep or 0)
    end,
    generate = generation.generate,
    stream = generation.stream,
    --- Its hooks fire in this model from now on; nil detaches. With a prefix p the points are called p_layer0_….
    set_hook_registry = function(model, registry, prefix)
      set_hook_registry(model, registry, prefix or "")
      engine.kept(model).registry = registry -- which holds the functions: the core's registry does not
    end,
    hook_registry = function(model) return engine.kept(model).registry end,
    --- The defaults of generate: of the directory, else the config's ids.
    generation_config = function(model)
      local config, directory = model:config(), engine.kept(model).directory
      if directory then return configs.GenerationConfig.from_pretrained(directory, config) end
      return configs.GenerationConfig {
        eos_token_id = config.eos_token_id,
        pad_token_id = config.pad_token_id,
      }
    end,
  },
})

--- Reads a HuggingFace directory. options: device, dtype ("float32", "bfloat16"), kv_cache_dtype (also "int8"), progress(done,
--- total); quantization ("int8", "int4") rounds the weights while they are loaded, group_size (a multiple of 32; if it is not
--- said 32 for int4, a whole row for int8) inputs share a scale, activations = "int8" rounds what they are multiplied with too.
function infinilm.load(directory, options)
  options = options_of.read("load", options, PLACING, LOAD)
  local model = engine.LlamaForCausalLM.from_pretrained(
    directory, options.device or "cpu", options.dtype, options.progress, options.kv_cache_dtype, rounding(options))
  engine.kept(model).directory = directory
  return model
end

--- A model without weights, to be filled by load_state_dict. options: as those of load that are not about a file.
function infinilm.LlamaForCausalLM(config, options)
  options = options_of.read("LlamaForCausalLM", options, PLACING)
  return engine.LlamaForCausalLM.new(config, options.device or "cpu", options.kv_cache_dtype, rounding(options))
end

return infinilm
