"""Run Llama-family models from HuggingFace directories, and look inside them.

>>> import infinilm
>>> model, tokenizer = infinilm.load(infinilm.sample_model())
>>> print(model.generate("ROMEO:", max_new_tokens=8))  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

from infinilm import _cuda, engine
from infinilm.dtypes import DataType
from infinilm.engine import (
    Capture,
    Captured,
    CudaDevice,
    Device,
    GenerationConfig,
    HookHandle,
    HookPoint,
    HookRegistry,
    KvCache,
    LlamaConfig,
    ModelConfig,
    ParameterInfo,
    StepInfo,
    StepSequence,
    Tensor,
    available_cpu_levels,
    cpu_level,
    cuda_devices,
    current_step,
    hook_points,
    load_safetensors,
    num_threads,
    parameters,
    save_safetensors,
    set_num_threads,
)

# Imported when first used: what `import infinilm` need not wait for.
_LAZY = {
    "LlamaForCausalLM": "infinilm.model",
    "Tokenizer": "infinilm.tokenizer",
    "load": "infinilm.loading",
    "LoadedModel": "infinilm.loading",
    "GenerateOutput": "infinilm.generation",
    "sample_model": "infinilm.loading",
}

__version__ = engine.version()

__all__ = [  # noqa: RUF022  # in the order of a reader's interest
    "load",
    "sample_model",
    "LlamaForCausalLM",
    "Tokenizer",
    "LoadedModel",
    "GenerateOutput",
    "LlamaConfig",
    "ModelConfig",
    "GenerationConfig",
    "KvCache",
    "HookRegistry",
    "HookHandle",
    "Capture",
    "Captured",
    "HookPoint",
    "StepInfo",
    "StepSequence",
    "current_step",
    "hook_points",
    "ParameterInfo",
    "parameters",
    "Tensor",
    "DataType",
    "Device",
    "load_safetensors",
    "save_safetensors",
    "set_num_threads",
    "num_threads",
    "get_num_threads",
    "cpu_level",
    "available_cpu_levels",
    "cuda_devices",
    "CudaDevice",
    "__version__",
]

get_num_threads = num_threads

_cuda.find_libraries()

for _class in (
    Capture,
    Captured,
    CudaDevice,
    Device,
    GenerationConfig,
    HookHandle,
    HookPoint,
    HookRegistry,
    KvCache,
    LlamaConfig,
    ModelConfig,
    ParameterInfo,
    StepInfo,
    StepSequence,
    Tensor,
    DataType,
):
    _class.__module__ = "infinilm"
del _class


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'infinilm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
