"""Checkpoints as quantisers write them, packed here with NumPy alone from the descriptions of the formats.

- compressed-tensors: https://github.com/vllm-project/compressed-tensors
- GPTQ: https://github.com/AutoGPTQ/AutoGPTQ, https://github.com/ModelCloud/GPTQModel (``checkpoint_format``)
- AWQ: https://github.com/casper-hansen/AutoAWQ ("gemm")

On 2026-11-27 every tensor that is packed here had the bits that these gave for the same matrices: AutoGPTQ 0.7.1
(``qlinear_cuda``), GPTQModel 7.7.0 (``pack_original``), AutoAWQ 0.2.9 (``gemm``), compressed-tensors 0.20.0, but for
``g_idx`` in the last, which has given it up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from infinilm import LlamaConfig, Tensor, engine
from numpy.typing import NDArray
from tiny import random_state

Array = NDArray[Any]

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # outputs in the places of a word, lowest bits first


@dataclass(frozen=True)
class Format:
    """One way of writing a quantised matrix. ``group`` -1: a whole row."""

    layout: str  # "pack-quantized", "int-quantized", "gptq", "gptq_v2", "awq"
    bits: int = 4
    group: int = 32
    zeros: bool = False
    ordered: bool = False  # columns are grouped by a g_idx
    scales: str = "float16"


@dataclass
class Matrix:
    """What is written: ``value = (code - zero) * scale``, with the group of each column."""

    codes: Array  # [outputs, inputs]
    scales: Array  # [outputs, groups]
    zeros: Array
    g_idx: Array

    def values(self) -> Array:
        """What the matrix stands for, exactly."""
        differences = self.codes.astype(np.float64) - self.zeros.astype(np.float64)[:, self.g_idx]
        return differences * self.scales.astype(np.float64)[:, self.g_idx]


def random_matrix(
    rng: np.random.Generator, shape: tuple[int, ...], f: Format, g_idx: Array
) -> Matrix:
    outputs, inputs = shape
    groups = int(g_idx.max()) + 1
    top = 2**f.bits
    codes = rng.integers(0, top, size=shape)
    size = rng.uniform(0.5, 1.5, size=(outputs, groups)) * 4 / (top * np.sqrt(inputs))
    zeros = np.full((outputs, groups), top // 2)
    if f.zeros:
        zeros = rng.integers(0, top, size=(outputs, groups))
        size *= 0.7
    return Matrix(codes, _as(size, f.scales), zeros, g_idx)


def group_indices(rng: np.random.Generator, inputs: int, f: Format) -> Array:
    natural = np.arange(inputs) // (inputs if f.group == -1 else f.group)
    return rng.permutation(natural) if f.ordered else natural


def words(values: Array, bits: int, axis: int) -> Array:
    """Non-negative numbers of ``bits`` in 32-bit words along ``axis``, lowest bits first."""
    moved = np.moveaxis(np.asarray(values, np.uint64), axis, -1)
    count = 32 // bits
    padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, -moved.shape[-1] % count)])
    shifts = np.arange(count, dtype=np.uint64) * np.uint64(bits)
    packed = (padded.reshape(*moved.shape[:-1], -1, count) << shifts).sum(-1)
    return np.ascontiguousarray(np.moveaxis(packed.astype(np.uint32).view(np.int32), -1, axis))


def tensors_of(m: Matrix, f: Format) -> dict[str, Array]:
    """The tensors of a module, by the last part of their names."""
    if f.layout in ("gptq", "gptq_v2"):
        return _gptq(m, f)
    if f.layout == "awq":
        return _awq(m)
    return _compressed(m, f)


def _compressed(m: Matrix, f: Format) -> dict[str, Array]:
    middle = 2 ** (f.bits - 1)
    tensors = {"weight_scale": m.scales}
    if f.layout == "pack-quantized":
        tensors["weight_packed"] = words(m.codes, f.bits, 1)
        tensors["weight_shape"] = np.array(m.codes.shape, np.int64)
        if f.zeros:
            tensors["weight_zero_point"] = words(m.zeros, f.bits, 0)
    else:
        tensors["weight"] = (m.codes - middle).astype(np.int8)
        if f.zeros:
            tensors["weight_zero_point"] = (m.zeros - middle).astype(np.int8)
    if f.ordered:
        tensors["weight_g_idx"] = m.g_idx.astype(np.int32)
    return tensors


def _gptq(m: Matrix, f: Format) -> dict[str, Array]:
    less = 1 if f.layout == "gptq" else 0
    return {
        "qweight": words(m.codes.T, f.bits, 0),
        "qzeros": words((m.zeros.T - less) % 2**f.bits, f.bits, 1),
        "scales": np.ascontiguousarray(m.scales.T),
        "g_idx": m.g_idx.astype(np.int32),
    }


def _awq(m: Matrix) -> dict[str, Array]:
    def packed(values: Array) -> Array:
        blocks = values.T.reshape(values.shape[1], -1, 8)[:, :, AWQ_ORDER]
        return words(blocks.reshape(values.shape[1], -1), 4, 1)

    return {
        "qweight": packed(m.codes),
        "qzeros": packed(m.zeros),
        "scales": np.ascontiguousarray(m.scales.T),
    }


def config_of(f: Format) -> dict[str, Any]:
    """``quantization_config`` as the quantisers write it."""
    if f.layout in ("gptq", "gptq_v2"):
        return {
            "quant_method": "gptq",
            "bits": f.bits,
            "group_size": f.group,
            "damp_percent": 0.01,
            "desc_act": f.ordered,
            "sym": not f.zeros,
            "true_sequential": True,
            "checkpoint_format": f.layout,
            "is_marlin_format": False,
        }
    if f.layout == "awq":
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": f.group,
            "version": "gemm",
            "zero_point": True,
            "modules_to_not_convert": None,
        }
    weights = {
        "num_bits": f.bits,
        "type": "int",
        "symmetric": not f.zeros,
        "strategy": "channel" if f.group == -1 else "group",
        "group_size": None if f.group == -1 else f.group,
        "actorder": "group" if f.ordered else None,
        "dynamic": False,
        "block_structure": None,
        "observer": "minmax",
    }
    group = {
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "targets": ["Linear"],
    }
    return {
        "quant_method": "compressed-tensors",
        "format": f.layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
        "ignore": ["lm_head"],
    }


@dataclass
class Checkpoint:
    """A directory, and what its parameters stand for (float32, exact: codes and scales are short)."""

    folder: Path
    config: LlamaConfig
    tensors: dict[str, Array]
    values: dict[str, Array]

    def save(self) -> Path:
        write(self.folder, self.config, self.tensors)
        return self.folder


def write(folder: Path, config: LlamaConfig, tensors: dict[str, Array]) -> None:
    config.save_pretrained(str(folder))
    engine.save_safetensors(
        str(folder / "model.safetensors"),
        {name: Tensor.from_numpy(values) for name, values in tensors.items()},
    )


def with_quantization(config: LlamaConfig, quantization: Any) -> LlamaConfig:
    document = json.loads(config.to_json())
    document["quantization_config"] = quantization
    return LlamaConfig.from_json(json.dumps(document))


def make_checkpoint(folder: Path, config: LlamaConfig, f: Format, seed: int = 0) -> Checkpoint:
    """Random codes in every linear layer; the head stays as it is."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    values: dict[str, Array] = dict(random_state(config, seed))
    orders: dict[str, Array] = {}
    for name, ordinary in values.items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj") or ordinary.ndim != 2:
            tensors[name] = ordinary
            continue
        inputs = module.rpartition(".")[0] + str(ordinary.shape[1]) + _input_of(module)
        g_idx = orders.setdefault(inputs, group_indices(rng, ordinary.shape[1], f))
        matrix = random_matrix(rng, ordinary.shape, f, g_idx)
        for part, array in tensors_of(matrix, f).items():
            tensors[f"{module}.{part}"] = array
        values[name] = matrix.values().astype(np.float32)
    return Checkpoint(folder, with_quantization(config, config_of(f)), tensors, values)


def _input_of(module: str) -> str:
    """q, k and v share their input, and so do gate and up."""
    return {"o_proj": "mixed", "down_proj": "hidden"}.get(module.rpartition(".")[2], "normed")


def _as(values: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16)
    if dtype == "float32":  # representable as float16, so that nothing is rounded
        return values.astype(np.float16).astype(np.float32)
    return values.astype(dtype)
