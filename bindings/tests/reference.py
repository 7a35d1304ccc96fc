"""The engine's operations in float64 NumPy, and how far float32 may be from them.

Each operation is the formula that its header states. Where the result is a sum of products, a second function gives the
sum of the products' magnitudes, from which the tests derive their bounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

EPS = float(np.finfo(np.float32).eps)
# What is rounded to zero or to a denormal has this absolute error.
TINY = 1e-37

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def wide(x: Any) -> Array:
    return np.asarray(x).astype(np.float64)


def linear(x: Any, weight: Any, bias: Any = 0.0) -> Array:
    return wide(x) @ wide(weight).T + wide(bias)


def linear_magnitude(x: Any, weight: Any) -> Array:
    return np.abs(wide(x)) @ np.abs(wide(weight)).T


def rms_norm(x: Any, weight: Any, eps: float) -> Array:
    x = wide(x)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * wide(weight)


def activation(x: Any, name: str) -> Array:
    x = wide(x)
    if name in ("silu", "swish"):
        return x * np.exp(-np.logaddexp(0.0, -x))
    if name == "gelu":
        return x * 0.5 * _erfc(-x / math.sqrt(2.0))
    if name == "relu":
        return np.maximum(x, 0.0)
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    return x * np.exp(-np.logaddexp(0.0, -2.0 * inner))


def activation_bound(x: Any, name: str) -> Array:
    """An error in an exponent's argument is a relative error of the power."""
    x = wide(x)
    if name == "gelu":
        tail = np.abs(x) * 0.5 * _erfc(np.abs(x) / math.sqrt(2.0))
        return EPS * (np.abs(activation(x, name)) + (6.0 + 2.0 * x * x) * tail) + TINY
    exponent = 1.6 * np.abs(x + 0.044715 * x**3) if name.startswith("gelu_") else np.abs(x) * 0.0
    return EPS * (6.0 + 2.0 * exponent) * np.abs(activation(x, name)) + TINY


def rope(x: Any, cos: Any, sin: Any) -> Array:
    """x: [T, heads, D]; halves are paired as in HF's rotate_half."""
    a, b = np.split(wide(x), 2, axis=-1)
    c, s = wide(cos)[:, None], wide(sin)[:, None]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def kept(x: Any, dtype: str) -> Array:
    """What a KV cache of `dtype` makes of keys or values [..., D].

    bfloat16: nearest even. int8: whole multiples, nearest even, of the largest magnitude of the D values / 127.
    """
    x = np.asarray(x, np.float32)
    if dtype == "bfloat16":
        bits = x.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return wide(bits.astype(np.uint32).view(np.float32))
    if dtype == "int8":
        scale = np.max(np.abs(x), axis=-1, keepdims=True) / np.float32(127)
        steps = np.rint(x / np.where(scale == 0, np.float32(1), scale))
        return wide(steps) * wide(scale)
    return wide(x)


def softmax(x: Any) -> Array:
    """Along the last axis; zeros for a row of -inf only."""
    x = wide(x)
    peak = np.max(x, axis=-1, keepdims=True)
    power = np.exp(x - np.where(np.isinf(peak), 0.0, peak))
    total = np.sum(power, axis=-1, keepdims=True)
    return power / np.where(total == 0.0, 1.0, total)


def visible(rows: int, length: int, window: int) -> Array:
    """[rows, length]: which keys the last `rows` tokens of a sequence see."""
    position = np.arange(length - rows, length)[:, None]
    key = np.arange(length)[None]
    seen: Array = key <= position
    return seen & (key > position - window) if window else seen


def per_head(keys: Any, heads: int) -> Array:
    """[S, K, D] -> [A, S, D]: query head h reads key head h / (A / K)."""
    keys = wide(keys)
    return np.repeat(keys, heads // keys.shape[1], axis=1).transpose(1, 0, 2)


def scores(q: Any, k: Any, window: int, scale: float) -> Array:
    """One sequence: q [rows, A, D], k [length, K, D] -> [A, rows, length], -inf where masked."""
    product = np.einsum("rad,ald->arl", wide(q), per_head(k, q.shape[1])) * scale
    return np.where(visible(len(q), len(k), window), product, -np.inf)


def attention(q: Any, k: Any, v: Any, window: int, scale: float) -> Array:
    weights = softmax(scores(q, k, window, scale))
    mixed: Array = np.einsum("arl,ald->rad", weights, per_head(v, q.shape[1]))
    return mixed


def attention_bound(
    q: Any, k: Any, v: Any, window: int, scale: float, rounding: float = 0.0
) -> Array:
    """An error d in a score is a relative error d of its weight and of the sum that divides it.

    ``rounding``: relative, of each query and each weight before it is multiplied.
    """
    seen = visible(len(q), len(k), window)
    magnitude = abs(scale) * np.einsum(
        "rad,ald->arl", np.abs(wide(q)), np.abs(per_head(k, q.shape[1]))
    )
    largest = np.max(np.where(seen, magnitude, 0.0), axis=-1).T[..., None]
    weights = softmax(scores(q, k, window, scale))
    mixed = np.einsum("arl,ald->rad", weights, np.abs(per_head(v, q.shape[1])))
    relative = EPS * (16.0 + math.sqrt(len(k)) / 4.0 + 8.0 * largest)
    return (relative + rounding * (2.0 + 3.0 * largest)) * mixed + TINY
