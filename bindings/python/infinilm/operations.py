"""The engine's operations one by one, on tensors and arrays: the same kernels that the model runs."""

from collections.abc import Sequence
from typing import Any

from infinilm import engine
from infinilm.engine import PackedLinear
from infinilm.engine import op_act_mul as act_mul
from infinilm.engine import op_add as add
from infinilm.engine import op_embed as embed
from infinilm.engine import op_rms_norm as rms_norm
from infinilm.engine import op_rope as rope
from infinilm.engine import op_softmax as softmax

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
) -> engine.Tensor:
    """Attention of ragged sequences: the last ``rows[i]`` of the ``lengths[i]`` tokens of sequence i are queries.

    q: [sum rows, A, D]; k, v: [sum lengths, K, D] -> [sum rows, A, D]. ``fused`` False: by scores,
    softmax, mix. ``kv_dtype``: what the cache rounds k and v to, float32, bfloat16 or int8.
    """
    return engine.op_attention(q, k, v, rows, lengths, window, scale, fused, kv_dtype)


def attention_scores(
    q: Any,
    k: Any,
    rows: Sequence[int],
    lengths: Sequence[int],
    window: int,
    scale: float,
    kv_dtype: Any = "float32",
) -> engine.Tensor:
    """[A, sum rows, longest length], scaled and masked with -inf."""
    return engine.op_attention_scores(q, k, rows, lengths, window, scale, kv_dtype)
