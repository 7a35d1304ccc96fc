"""Random Llama-shaped checkpoints in HuggingFace's layout, made with NumPy alone.

The speed of a model does not depend on its weights, but the error of a quantised one does. So they
are spread as those of trained models are: tails heavier than a normal distribution's (Student's t
with 6 degrees of freedom), rows and columns of different size (log-normal, sigma 0.3; rows of the
embedding and the head 0.05), and norms in which one channel in 256 is six times as large as the
others. Each block adds to the residual stream a fraction of the embedding's size, so that an error
grows through the layers about as in trained models. The final norm gives logits a standard
deviation of about 3.5; half of its weights are negative, since a tied head would otherwise repeat
its input.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .shapes import Shape

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_POOL = 4_194_301  # a prime, so that no two rows of a matrix are alike
_SPREAD = 0.3
_VOCABULARY_SPREAD = 0.05
_FINAL_NORM = 2.8
_BLOCK = 0.1  # what a block adds, by the embedding's size


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """HuggingFace's names and shapes, in HuggingFace's order."""
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


class _Weights:
    """Draws one tensor after the other; the same seed gives the same weights."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pool = self._rng.standard_t(6, _POOL).astype(np.float32)
        self._pool /= self._pool.std()

    def matrix(
        self, rows: int, columns: int, row_spread: float, gain: float
    ) -> NDArray[np.float32]:
        """Products with it are about ``gain`` times as large as their input."""
        start = int(self._rng.integers(_POOL))
        values = np.resize(np.roll(self._pool, -start), rows * columns).reshape(rows, columns)
        values *= self._sizes(rows, row_spread)[:, None]
        values *= self._sizes(columns) * np.float32(gain / np.sqrt(columns))
        return values

    def norm(self, size: int) -> NDArray[np.float32]:
        """The weights of a normalisation."""
        values = self._sizes(size)
        values[self._rng.choice(size, max(1, size // 256), replace=False)] *= 6
        return values

    def final_norm(self, size: int) -> NDArray[np.float32]:
        """The weights of the last one."""
        signs = self._rng.choice(np.array([-_FINAL_NORM, _FINAL_NORM], np.float32), size)
        values: NDArray[np.float32] = self.norm(size) * signs
        return values

    def _sizes(self, count: int, spread: float = _SPREAD) -> NDArray[np.float32]:
        return self._rng.lognormal(0.0, spread, count).astype(np.float32)


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


def _write_weights(file: BinaryIO, shape: Shape, dtype: str, seed: int) -> None:
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
    weights = _Weights(seed)
    for name, size in shapes.items():
        file.write(to_stored(_values(weights, name, size, shape), dtype).data)


def _values(
    weights: _Weights, name: str, size: tuple[int, ...], shape: Shape
) -> NDArray[np.float32]:
    if name == "model.norm.weight":
        return weights.final_norm(*size)
    if len(size) == 1:
        return weights.norm(*size)
    adds = name.endswith(("o_proj.weight", "down_proj.weight"))
    gain = _BLOCK / shape.hidden**0.5 if adds else 1.0
    rows, columns = size
    return weights.matrix(
        rows, columns, _VOCABULARY_SPREAD if rows == shape.vocab else _SPREAD, gain
    )


def write_checkpoint(directory: Path, shape: Shape, dtype: str = "bfloat16", seed: int = 0) -> None:
    """Writes config.json and model.safetensors; config.json last, so that it means completeness."""
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"part-{os.getpid()}"
    with part.open("wb") as file:
        _write_weights(file, shape, dtype, seed)
    part.replace(directory / "model.safetensors")
    text = json.dumps(shape.config(dtype), indent=2) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")


@contextmanager
def temporary_checkpoint(shape: Shape, dtype: str = "bfloat16", seed: int = 0) -> Iterator[Path]:
    """A checkpoint that is gone afterwards; in memory where the system has a place for that and there is room."""
    with tempfile.TemporaryDirectory(dir=_memory_folder(shape, dtype)) as folder:
        write_checkpoint(Path(folder), shape, dtype, seed)
        yield Path(folder)


def _memory_folder(shape: Shape, dtype: str) -> str | None:
    sizes = tensor_shapes(shape).values()
    needed = sum(int(np.prod(size)) for size in sizes) * (4 if dtype == "float32" else 2)
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return None
    status = os.statvfs(folder)
    # As much again for the packed weights, which are in memory too.
    return str(folder) if status.f_bavail * status.f_frsize > 2.5 * needed else None
