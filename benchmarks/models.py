#!/usr/bin/env python3
"""Random Llama-shaped checkpoints in HuggingFace's layout, made with NumPy alone.

    python models.py 150m bfloat16 FOLDER

prints the directory that it made, or found already made. Speeds do not depend on what the weights
are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide how much there is to read and to compute."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Parameters of the matrices of all layers: each costs a multiply-add for each token."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output matrix."""
        return self.vocab * self.hidden


SHAPES = {
    "tiny": ModelShape(64, 160, 2, 4, 2, 256),
    "150m": ModelShape(768, 2048, 12, 12, 4, 32000),
    "1b": ModelShape(2048, 8192, 16, 32, 8, 128256, tied=True),
}
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
LONGEST = 2048


def tensor_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """HF's names and shapes, in HF's order."""
    hidden, inner = shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, hidden)}
    for layer in range(shape.layers):
        within = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": size for name, size in within.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not shape.tied:
        shapes["lm_head.weight"] = (shape.vocab, hidden)
    return shapes


def config(shape: ModelShape, dtype: str) -> dict[str, Any]:
    """What config.json says; no end-of-sequence id, so that every run has its full length."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        "torch_dtype": dtype,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": LONGEST,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": None,
    }


def to_stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The bytes of a dtype; bfloat16, which NumPy lacks, is a float32's upper half, rounded."""
    if dtype == "float32":
        return values
    if dtype == "float16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    upper: NDArray[Any] = (bits >> np.uint32(16)).astype(np.uint16)
    return upper


def write_weights(file: BinaryIO, shape: ModelShape, dtype: str) -> None:
    """A safetensors file, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    itemsize = 4 if dtype == "float32" else 2
    shapes = tensor_shapes(shape)
    for name, size in shapes.items():
        end = begin + int(np.prod(size)) * itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": size, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    rng = np.random.default_rng(0)
    for size in shapes.values():
        values = rng.standard_normal(size, np.float32)
        values *= np.float32(0.02)
        if len(size) == 1:
            values += np.float32(1)
        file.write(to_stored(values, dtype).tobytes())


def make_checkpoint(name: str, dtype: str, folder: Path) -> Path:
    """The directory of the model in ``folder``; made unless it is there."""
    directory = folder / f"{name}-{dtype}"
    if (directory / "config.json").exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"part-{os.getpid()}"
    with part.open("wb") as file:
        write_weights(file, SHAPES[name], dtype)
    part.replace(directory / "model.safetensors")
    # Last: with it the directory is complete.
    text = json.dumps(config(SHAPES[name], dtype), indent=2) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")
    return directory


def default_folder() -> Path:
    """Where checkpoints are kept unless the user names another place."""
    return Path(tempfile.gettempdir()) / "infinilm-benchmarks"


def main() -> None:
    """Makes one checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("dtype", choices=DTYPES)
    parser.add_argument("folder", type=Path, nargs="?", default=default_folder())
    options = parser.parse_args()
    print(make_checkpoint(options.shape, options.dtype, options.folder))


if __name__ == "__main__":
    main()
