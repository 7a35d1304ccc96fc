"""Run Llama-family models from HuggingFace directories, and look inside them."""

from infinilm import engine as engine
from infinilm.dtypes import DataType as DataType
from infinilm.engine import (
    Capture as Capture,
)
from infinilm.engine import (
    Captured as Captured,
)
from infinilm.engine import (
    CudaDevice as CudaDevice,
)
from infinilm.engine import (
    Device as Device,
)
from infinilm.engine import (
    GenerationConfig as GenerationConfig,
)
from infinilm.engine import (
    HookHandle as HookHandle,
)
from infinilm.engine import (
    HookPoint as HookPoint,
)
from infinilm.engine import (
    HookRegistry as HookRegistry,
)
from infinilm.engine import (
    KvCache as KvCache,
)
from infinilm.engine import (
    LlamaConfig as LlamaConfig,
)
from infinilm.engine import (
    ModelConfig as ModelConfig,
)
from infinilm.engine import (
    ParameterInfo as ParameterInfo,
)
from infinilm.engine import (
    StepInfo as StepInfo,
)
from infinilm.engine import (
    StepSequence as StepSequence,
)
from infinilm.engine import (
    Tensor as Tensor,
)
from infinilm.engine import (
    available_cpu_levels as available_cpu_levels,
)
from infinilm.engine import (
    cpu_level as cpu_level,
)
from infinilm.engine import (
    cuda_devices as cuda_devices,
)
from infinilm.engine import (
    current_step as current_step,
)
from infinilm.engine import (
    hook_points as hook_points,
)
from infinilm.engine import (
    load_safetensors as load_safetensors,
)
from infinilm.engine import (
    num_threads as num_threads,
)
from infinilm.engine import (
    parameters as parameters,
)
from infinilm.engine import (
    save_safetensors as save_safetensors,
)
from infinilm.engine import (
    set_num_threads as set_num_threads,
)
from infinilm.generation import GenerateOutput as GenerateOutput
from infinilm.loading import (
    LoadedModel as LoadedModel,
)
from infinilm.loading import (
    load as load,
)
from infinilm.loading import (
    sample_model as sample_model,
)
from infinilm.model import LlamaForCausalLM as LlamaForCausalLM
from infinilm.tokenizer import Tokenizer as Tokenizer

get_num_threads = num_threads
__version__: str

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
