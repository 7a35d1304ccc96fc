"""``infinilm inspect``: what a model directory holds, from its config and file headers alone."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from typing import Any

from .common import model_directory
from .table import format_table

USAGE = "[DIR] [options]"
HELP = "show what a model directory holds, before loading it"
DESCRIPTION = """\
Show a model's architecture, size, memory and hook points. Reads config.json and the headers of the
weight files, no weights."""
EXAMPLES = """\
examples:
  infinilm inspect                                 the small model that comes with the package
  infinilm inspect ~/models/Llama-3.2-1B
  infinilm inspect ~/models/Llama-3.2-1B --no-points
"""
_BYTES = {"float32": 4, "bfloat16": 2}
_STORED_BYTES = _BYTES | {"float16": 2, "int8": 1}
# What is in the place of a quantised matrix and is kept.
_QUANTISED = (
    *("weight_packed", "weight_scale", "weight_zero_point"),  # compressed-tensors
    *("qweight", "qzeros", "scales"),  # GPTQ, AWQ
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "model", nargs="?", metavar="DIR", help="HuggingFace directory (default: the sample model)"
    )
    parser.add_argument(
        "--no-points", action="store_true", help="leave out the table of hook points"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables."""
    from .. import engine

    directory = model_directory(arguments.model)
    config = engine.LlamaConfig.from_pretrained(directory)
    parameters = engine.parameters(config)
    print(f"{directory}\n")
    print(format_table(_architecture(config)))
    print()
    print(format_table(_sizes(config, parameters, _stored(directory))))
    if not arguments.no_points:
        print("\nHook points (T: tokens, S: keys so far; {i}: the layer, 0 to", end=" ")
        print(f"{config.num_hidden_layers - 1}; --points of `infinilm trace`)\n")
        print(format_table(_points(engine, config)))
    return 0


def _architecture(config: Any) -> list[tuple[str, str]]:
    attention = f"{config.num_attention_heads} heads of {config.head_dim}"
    if config.num_key_value_heads != config.num_attention_heads:
        attention += f", {config.num_key_value_heads} key-value heads"
    extras = [
        text
        for text, used in (
            ("tied embeddings", config.tie_word_embeddings),
            ("q/k/v bias", config.attention_bias),
            ("o bias", config.attention_output_bias),
            ("MLP bias", config.mlp_bias),
            ("q/k norm", config.qk_norm),
            (f"sliding window {config.sliding_window}", config.sliding_window),
        )
        if used
    ]
    scaling = config.rope_scaling
    quantised = json.loads(config.to_json()).get("quantization_config")
    if quantised:
        extras.append(f"quantised ({quantised['quant_method']})")
    rope = f"theta {config.rope_theta:,.10g}"
    if scaling:
        kind = scaling.get("rope_type", scaling.get("type"))
        rope += f", {kind} scaling"
    return [
        ("model type", config.model_type),
        ("layers", str(config.num_hidden_layers)),
        ("hidden size", str(config.hidden_size)),
        ("attention", attention),
        ("MLP", f"{config.intermediate_size}, {config.hidden_act}"),
        ("vocabulary", f"{config.vocab_size:,}"),
        ("longest sequence", f"{config.max_sequence_length():,} tokens"),
        ("rotary positions", rope),
        ("also", ", ".join(extras) or "nothing special"),
    ]


def _stored(directory: str) -> dict[str, Any] | None:
    """The tensors of the weight files, mapped and not read; None if there are no such files."""
    from .. import engine

    try:
        return engine.load_checkpoint(directory)
    except FileNotFoundError:
        return None


def _sizes(
    config: Any, parameters: list[Any], stored: dict[str, Any] | None
) -> list[tuple[str, str]]:
    count = sum(math.prod(parameter.shape) for parameter in parameters)
    rows = [("parameters", f"{count:,}")]
    if stored is None:
        rows.append(("weight files", "none here"))
    else:
        dtypes: Counter[str] = Counter()
        for tensor in stored.values():
            dtypes[str(tensor.dtype)] += math.prod(tensor.shape)
        held = ", ".join(f"{n:,} {dtype}" for dtype, n in dtypes.most_common())
        rows.append(("stored", f"{len(stored)} tensors: {held}"))
        missing = {p.name for p in parameters if not _instead(stored, p.name)} - stored.keys()
        if missing:
            rows.append(("missing", f"{len(missing)} tensors, such as {min(missing)}"))
    for dtype, width in _BYTES.items():
        rows.append((f"memory in {dtype}", _size(_held(parameters, stored, width))))
    token = 2 * config.num_hidden_layers * config.kv_dim() * 4
    full = token * config.max_sequence_length()
    rows.append(("KV cache", f"{_size(token)} a token, {_size(full)} for the longest sequence"))
    return rows


def _held(parameters: list[Any], stored: dict[str, Any] | None, width: int) -> int:
    """Bytes of the loaded weights: elements stored in less than ``width`` bytes are kept as they
    are and widened when they are used.
    """
    total = 0
    for parameter in parameters:
        quantised = _instead(stored or {}, parameter.name)
        if quantised:
            total += sum(tensor.nbytes for tensor in quantised)
            continue
        tensor = (stored or {}).get(parameter.name)
        kept = width if tensor is None else _STORED_BYTES.get(str(tensor.dtype), width)
        total += math.prod(parameter.shape) * min(width, kept)
    return total


def _instead(stored: dict[str, Any], name: str) -> list[Any]:
    """The tensors that are in the place of a quantised matrix."""
    module = name.removesuffix("weight")
    names = [module + part for part in (*_QUANTISED, "weight")]
    found = [stored[n] for n in names if n in stored]
    return found if len(found) > 1 else []


def _points(engine: Any, config: Any) -> list[tuple[str, ...]]:
    """One row for each point, that of layer 0 standing for all layers."""
    rows: list[tuple[str, ...]] = [("point", "shape", "here", "when")]
    for point in engine.hook_points(config):
        if point.layer_idx > 0:
            continue
        name = point.name
        if point.layer_idx == 0:
            name = name.replace("layer0_", "layer{i}_", 1)
        rows.append((name, point.shape, point.shape_values, point.when.split(";")[0]))
    return rows


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
