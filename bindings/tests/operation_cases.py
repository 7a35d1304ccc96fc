"""The table of cases for the operations: what is multiplied, in which shapes and types.

Shapes include 1, odd sizes, and sizes around the widths that the kernels work in (panels of 8, 16 or 64
outputs, strips of 6 rows, blocks of 128 or 256 in depth, chunks of 96 and 768 rows, 64 tokens in a block
of the cache, 512 in a segment).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


class LinearCase(NamedTuple):
    rows: int
    depth: int
    outputs: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.rows}x{self.depth}x{'+'.join(map(str, self.outputs))}"


LINEAR = [
    LinearCase(1, 1, (1,)),
    LinearCase(1, 64, (64,)),
    LinearCase(1, 257, (1000,)),
    LinearCase(1, 2049, (67,)),
    LinearCase(2, 63, (17,)),
    LinearCase(3, 300, (130, 33, 33)),
    LinearCase(4, 256, (9,)),
    LinearCase(5, 7, (65,)),
    LinearCase(6, 128, (16, 8)),
    LinearCase(7, 129, (15, 1)),
    LinearCase(8, 2, (64, 64)),
    LinearCase(13, 700, (128,)),
    LinearCase(19, 255, (63,)),
    LinearCase(97, 131, (40,)),
    LinearCase(200, 520, (72, 24)),
    LinearCase(770, 33, (19,)),
]
# How the weights are stored and what is computed in.
TYPES = [
    ("float32", "float32"),
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
    ("float16", "bfloat16"),
    ("bfloat16", "bfloat16"),
]


class AttentionCase(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    window: int = 0

    def __str__(self) -> str:
        ragged = ",".join(f"{r}of{n}" for r, n in zip(self.rows, self.lengths, strict=True))
        window = f"w{self.window}" if self.window else ""
        return f"{self.heads}-{self.kv_heads}x{self.head_dim}:{ragged}{window}"


ATTENTION = [
    AttentionCase(1, 1, 2, (1,), (1,)),
    AttentionCase(1, 1, 8, (3,), (3,)),
    AttentionCase(4, 2, 12, (5, 1, 7), (5, 9, 64)),
    AttentionCase(8, 2, 64, (65,), (65,)),
    AttentionCase(6, 1, 80, (1, 1, 1), (63, 64, 65)),
    AttentionCase(4, 4, 96, (10,), (129,)),
    AttentionCase(2, 2, 128, (70, 2), (70, 300)),
    AttentionCase(14, 2, 64, (1,), (700,)),
    AttentionCase(7, 1, 22, (4,), (1100,)),
    AttentionCase(2, 1, 10, (200,), (200,), window=7),
    AttentionCase(4, 2, 16, (1, 30), (1300, 150), window=64),
    AttentionCase(2, 1, 32, (90,), (700,), window=600),
    AttentionCase(2, 2, 8, (0, 4), (3, 6)),
    AttentionCase(64, 1, 4, (3,), (70,)),
]


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(values: Array, dtype: str) -> Array:
    """`values` rounded to a type that a checkpoint may have."""
    if dtype == "bfloat16":
        return values.astype(pytest.importorskip("ml_dtypes").bfloat16)
    return values.astype(dtype)


def rounded(values: Array, compute: str) -> Array:
    """What a product computed in `compute` makes of its inputs, as float32."""
    values = values.astype(np.float32)
    return stored(values, "bfloat16").astype(np.float32) if compute == "bfloat16" else values
