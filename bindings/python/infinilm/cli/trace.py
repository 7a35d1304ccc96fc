"""``infinilm trace``: intermediate values of one forward pass."""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .common import add_model_arguments, add_prompt_arguments, load, read_prompt
from .table import format_table

if TYPE_CHECKING:
    from ..loading import LoadedModel

USAGE = "PROMPT [options]"
HELP = "run a prompt and show intermediate values"
DESCRIPTION = """\
Run a prompt once and show what went past the chosen hook points: shape, mean, Euclidean norm, and
the largest entries with their indices ([token, feature] for most points)."""
EXAMPLES = """\
examples:
  infinilm trace "ROMEO:"                                    the residual stream after each layer
  infinilm trace "ROMEO:" --points "layer0_*"                  everything in layer 0
  infinilm trace "ROMEO:" --points "*_mlp" --points logits --top 5
  infinilm trace "ROMEO:" --points "*" --save trace.safetensors
  infinilm trace --model ~/models/Llama-3.2-1B -p "layer#_attention_weights" "The cat sat"

* stands for any text, ? for one character, # for a number. `infinilm inspect` lists the points.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add_prompt_arguments(parser)
    parser.add_argument(
        "--points",
        "-p",
        action="append",
        metavar="GLOB",
        help="hook points to show; may be repeated (default: layer#_output)",
    )
    parser.add_argument(
        "--top", type=int, default=3, metavar="N", help="how many largest entries (default: 3)"
    )
    parser.add_argument("--save", metavar="FILE", help="write the tensors as a safetensors file")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table, and writes the file."""
    from .. import engine

    prompt = read_prompt(arguments)
    loaded = load(arguments)
    ids = loaded.tokenizer.encode(prompt)
    tensors = capture(loaded, ids, arguments.points or ["layer#_output"])
    tokens = [f"{i} {loaded.tokenizer.decode([token])!r}" for i, token in enumerate(ids)]
    print(f"tokens: {', '.join(tokens)}\n")
    rows = [("point", "shape", "mean", "norm", f"largest {arguments.top}")]
    rows += [(name, *_describe(t.numpy(), arguments.top)) for name, t in tensors.items()]
    print(format_table(rows, right=frozenset({2, 3})))
    if arguments.save:
        metadata = {"prompt": prompt, "tokens": " ".join(map(str, ids))}
        engine.save_safetensors(arguments.save, tensors, metadata)
        print(f"\nsaved {len(tensors)} tensors to {arguments.save}")
    return 0


def capture(loaded: LoadedModel, ids: list[int], patterns: list[str]) -> dict[str, Any]:
    """The tensors at the hook points that match, in the order of execution."""
    from .. import engine

    tensors: dict[str, Any] = {}

    def keep(name: str, tensor: Any, layer_idx: int) -> None:
        tensors[name] = tensor

    registry = engine.HookRegistry()
    for pattern in patterns:
        registry.register_hook(pattern, keep)
    loaded.model.set_hook_registry(registry)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a name that matches nothing
            loaded.model.forward(ids)
    finally:
        loaded.model.set_hook_registry(None)
    return tensors


def _describe(values: NDArray[Any], top: int) -> tuple[str, str, str, str]:
    shape = "[" + ", ".join(map(str, values.shape)) + "]"
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]  # masked attention scores are -inf
    mean = f"{finite.mean():.4g}" if finite.size else "-"
    norm = f"{np.linalg.norm(finite):.4g}"
    size = np.where(np.isfinite(wide), np.abs(wide), -1).ravel()
    order = np.argsort(-size, kind="stable")[: max(top, 0)]
    entries = []
    for flat in order[size[order] >= 0]:
        index = ", ".join(str(int(i)) for i in np.unravel_index(flat, values.shape))
        entries.append(f"[{index}] {wide.flat[flat]:.4g}")
    return shape, mean, norm, "  ".join(entries)
