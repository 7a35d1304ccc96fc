"""The engine's operations one by one, on tensors and arrays: the same kernels that the model runs.

Arrays are copied to ``device`` where they are elsewhere; results are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import infinilm._engine as _engine
from infinilm.engine import PackedLinear, Tensor

__all__ = [
    "PackedLinear",
    "act_mul",
    "add",
    "attention",
    "attention_scores",
    "embed",
    "rms_norm",
    "rope",
    "softmax",
]


def embed(ids: Sequence[int], table: Any, device: str = "cpu") -> Tensor:
    """Return table[ids], [T, H]; table: [V, H]. IndexError for an id outside of the table."""
    y: Tensor = _engine._op_embed(ids, table, device)
    return y


def rms_norm(x: Any, weight: Any, eps: float, device: str = "cpu") -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, row by row; x: [T, H]."""
    y: Tensor = _engine._op_rms_norm(x, weight, eps, device)
    return y


def act_mul(gate: Any, up: Any, act: str, device: str = "cpu") -> Tensor:
    """Return act(gate) * up."""
    y: Tensor = _engine._op_act_mul(gate, up, act, device)
    return y


def add(x: Any, y: Any, device: str = "cpu") -> Tensor:
    """Return x + y."""
    total: Tensor = _engine._op_add(x, y, device)
    return total


def rope(x: Any, cos: Any, sin: Any, device: str = "cpu") -> Tensor:
    """Return each head of x rotated; x: [T, heads, D]; cos, sin: [T, D/2]."""
    y: Tensor = _engine._op_rope(x, cos, sin, device)
    return y


def softmax(x: Any, device: str = "cpu") -> Tensor:
    """Return the softmax of each row; a row of -inf only becomes zeros."""
    y: Tensor = _engine._op_softmax(x, device)
    return y


def attention(
    q: Any,
    k: Any,
    v: Any,
    rows: Sequence[int],
    lengths: Sequence[int],
    window: int,
    scale: float,
    fused: bool,
    kv_dtype: Any = "float32",
    device: str = "cpu",
) -> Tensor:
    """Attention of ragged sequences: the last ``rows[i]`` of the ``lengths[i]`` tokens of sequence i are queries.

    q: [sum rows, A, D]; k, v: [sum lengths, K, D] -> [sum rows, A, D]. ``fused`` False: by scores,
    softmax, mix. ``kv_dtype``: what the cache rounds k and v to, float32, bfloat16 or int8.
    """
    y: Tensor = _engine._op_attention(
        q, k, v, rows, lengths, window, scale, fused, kv_dtype, device
    )
    return y


def attention_scores(
    q: Any,
    k: Any,
    rows: Sequence[int],
    lengths: Sequence[int],
    window: int,
    scale: float,
    kv_dtype: Any = "float32",
    device: str = "cpu",
) -> Tensor:
    """Return [A, sum rows, longest length], scaled and masked with -inf."""
    scores: Tensor = _engine._op_attention_scores(
        q, k, rows, lengths, window, scale, kv_dtype, device
    )
    return scores
