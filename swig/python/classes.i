// What Python adds to the proxies: each class takes a base of Python methods from a module of the package, so that those are
// ordinary Python (linted, typed).
%pythoncode %{
import atexit
import collections.abc
import os
import typing

import infinilm._configs
import infinilm._hooks
import infinilm._tensor
import infinilm.dtypes

_swig_repr = infinilm._hooks.represent
%}

%define INFINILM_PY_BASE(Class, Base)
%feature("python:abc", Base) infinilm::Class;
%enddef

INFINILM_PY_BASE(Tensor, "infinilm._tensor.TensorMethods")
INFINILM_PY_BASE(Device, "infinilm._tensor.DeviceMethods")
INFINILM_PY_BASE(ModelConfig, "infinilm._configs.ConfigMethods")
INFINILM_PY_BASE(LlamaConfig, "infinilm._configs.LlamaConfigMethods")
INFINILM_PY_BASE(GenerationConfig, "infinilm._configs.GenerationConfigMethods")
INFINILM_PY_BASE(HookRegistry, "infinilm._hooks.HookRegistryMethods")
INFINILM_PY_BASE(HookHandle, "infinilm._hooks.Readable")
INFINILM_PY_BASE(Capture, "infinilm._hooks.CaptureMethods")
INFINILM_PY_BASE(Captured, "infinilm._hooks.CapturedMethods")
INFINILM_PY_BASE(HookPoint, "infinilm._hooks.Readable")
INFINILM_PY_BASE(HookPointPattern, "infinilm._hooks.Readable")
INFINILM_PY_BASE(ParameterInfo, "infinilm._hooks.Readable")
INFINILM_PY_BASE(CudaDevice, "infinilm._hooks.Readable")
INFINILM_PY_BASE(Peak, "infinilm._hooks.Readable")
INFINILM_PY_BASE(Quantization, "infinilm._hooks.QuantizationMethods")
INFINILM_PY_BASE(StepInfo, "infinilm._hooks.Readable")
INFINILM_PY_BASE(StepSequence, "infinilm._hooks.Readable")
INFINILM_PY_BASE(KvCache, "infinilm._hooks.KvCacheMethods")
INFINILM_PY_BASE(LlamaForCausalLM, "infinilm._hooks.ModelMethods")
INFINILM_PY_BASE(Generation, "infinilm._hooks.GenerationMethods")

// Where such a method replaces one of the core's, that one gets an underscore.
%rename(__str__) infinilm::Tensor::str;
%rename(__str__) infinilm::Device::str;
%rename(__str__) infinilm::Quantization::str;
%rename(_equals) infinilm::Device::equals;
%rename(_equals) infinilm::LlamaConfig::equals;
%rename(_equals) infinilm::GenerationConfig::equals;
%rename(_copy) infinilm::LlamaConfig::copy;
%rename(_copy) infinilm::GenerationConfig::copy;
%rename(_rope_scaling_json) infinilm::LlamaConfig::rope_scaling_json;
%rename(_set_rope_scaling_json) infinilm::LlamaConfig::set_rope_scaling_json;
%rename(_head_dim_is_set) infinilm::LlamaConfig::head_dim_is_set;
%rename(_capture) infinilm::HookRegistry::capture;
%rename(_tensor) infinilm::Captured::tensor;
%rename(_step) infinilm::Captured::step;
%rename(_register_hook) infinilm::HookRegistry::register_hook;
%rename(__len__) infinilm::HookRegistry::size;
%rename(__len__) infinilm::Capture::size;
%rename(_of) infinilm::Capture::of;
%rename(_hook_points) infinilm_swig::hook_points;
%rename(_sampling_probabilities) infinilm::sampling_probabilities;
%rename(_sample) infinilm::sample;
%rename(_save_safetensors) infinilm::save_safetensors;
%rename(_empty) infinilm::Tensor::empty;
%rename(_from_pretrained) infinilm::LlamaForCausalLM::from_pretrained;
%rename(_new_cache) infinilm::LlamaForCausalLM::new_cache;
%rename(_forward) infinilm::LlamaForCausalLM::forward;
%rename(_save_pretrained) infinilm::LlamaForCausalLM::save_pretrained;
%rename(_set_hook_registry) infinilm::LlamaForCausalLM::set_hook_registry;
%rename(_hook_registry) infinilm::LlamaForCausalLM::hook_registry;

// infinilm/operations.py has the operations with their defaults: one function each, not one for each number of arguments.
%define INFINILM_OPERATION(name)
%feature("compactdefaultargs") infinilm::operations::name;
%rename(_op_##name) infinilm::operations::name;
%enddef
%feature("compactdefaultargs") infinilm::operations::PackedLinear::PackedLinear;
%feature("shadow") infinilm::operations::PackedLinear::PackedLinear %{
    def __init__(self, weights, compute, device="cpu", quantization=None):
        r"""
        weights: matrices [N_p, K] stacked; compute: float32 or bfloat16, on CUDA also float16. `quantization`: rounds them
        first.
        """
        if quantization is None:
            quantization = Quantization()
        _engine.PackedLinear_swiginit(self, _engine.new_PackedLinear(weights, compute, device, quantization))
%}

%feature("shadow") infinilm::LlamaConfig::LlamaConfig() %{
    def __init__(self, **fields):
        _engine.LlamaConfig_swiginit(self, _engine.new_LlamaConfig())
        self._set_fields(fields)
%}
%feature("shadow") infinilm::GenerationConfig::GenerationConfig() %{
    def __init__(self, **fields):
        _engine.GenerationConfig_swiginit(self, _engine.new_GenerationConfig())
        self._set_fields(fields)
%}
%feature("shadow") infinilm::LlamaForCausalLM::LlamaForCausalLM %{
    def __init__(self, config, device="cpu", kv_cache_dtype=None, quantization=None):
        r"""
        A model without weights, to be filled by `load_state_dict`. `kv_cache_dtype`: float32, bfloat16 or int8, by
        default the compute type. `quantization`: of the weights that it will be given. ValueError for an invalid config.
        """
        if quantization is None:
            quantization = Quantization()
        _engine.LlamaForCausalLM_swiginit(
            self, _engine.new_LlamaForCausalLM(config, device, kv_cache_dtype, quantization))
%}
%feature("shadow") infinilm::Generation::Generation %{
    def __init__(self, model, prompts, config, processors=(), cache=None):
        slots = self._keep(model, processors)
        _engine.Generation_swiginit(self, _engine.new_Generation(model, prompts, config, slots, cache))
%}

// Before the interpreter dies: threads that are still in the core touch no Python object from here on.
%rename(_shut_down) infinilm_py_shut_down;
%rename(_callbacks_under_lock) infinilm_py_callbacks_under_lock;
%inline %{
void infinilm_py_shut_down() { infinilm_py::shutting_down = true; }
std::int64_t infinilm_py_callbacks_under_lock() { return infinilm_py::callbacks_under_lock; }
%}
%pythoncode %{
atexit.register(_shut_down)
%}
