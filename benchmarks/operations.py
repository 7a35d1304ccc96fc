#!/usr/bin/env python3
"""The engine's operations one by one, as shares of the machine's limits and against NumPy and torch.

    python operations.py                             a 1B model's sizes
    python operations.py --only linear --rows 1 8 512 --formats bfloat16

Products are held against the peak arithmetic of their number format and, where the weights take
longer to read than to multiply with, against the read bandwidth; all others against the bandwidth,
over the bytes that they read and write. Each limit is measured right before and after. "NumPy" and
"torch" say how many times as long the same takes there, in float32 for NumPy, in the same format
for torch (not for quantised weights).

Enough different weights take turns that the processor's caches do not hold them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import infinilm
import numpy as np
import report
from infinilm import engine, operations
from numpy.typing import NDArray

Array = NDArray[np.float32]
Work = Callable[[], object]

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 2048, 8192, 32, 8, 64
BUFFER = 1 << 29
FORMATS: dict[str, tuple[str, str, float, dict[str, Any]]] = {
    # name: (stored, computed in, bits a weight, arguments of Quantization)
    "float32": ("float32", "float32", 32, {}),
    "bfloat16 in float32": ("bfloat16", "float32", 16, {}),
    "bfloat16": ("bfloat16", "bfloat16", 16, {}),
    "int8": ("bfloat16", "bfloat16", 8, {"name": "int8"}),
    "int8, int8 activations": (
        "bfloat16", "int8", 8, {"name": "int8", "activations": "int8"},
    ),
    "int4 g32": ("bfloat16", "bfloat16", 4.5, {"name": "int4", "group_size": 32}),
    "int4 g128": ("bfloat16", "bfloat16", 4.125, {"name": "int4", "group_size": 128}),
    "int4 g32, int8 activations": (
        "bfloat16", "int8", 4.5,
        {"name": "int4", "group_size": 32, "activations": "int8"},
    ),
    "int4 g128, int8 activations": (
        "bfloat16", "int8", 4.125,
        {"name": "int4", "group_size": 128, "activations": "int8"},
    ),
}  # fmt: skip


@dataclass
class Case:
    """One operation in one size, the same work for each library."""

    name: str
    ours: Work
    flops: float
    nbytes: float
    arithmetic: str = "float32"
    others: dict[str, Work] | None = None


def numbers(*shape: int) -> Array:
    """Random, the same each time."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def in_turn(works: Sequence[Work]) -> Work:
    """The next one at each call."""
    turn = itertools.cycle(works)
    return lambda: next(turn)()


def linear_cases(rows: list[int], formats: list[str], buffer: int) -> Iterator[Case]:
    """The MLP's gate: [M, 2048] by [8192, 2048] transposed."""
    weight = numbers(INNER, HIDDEN)
    for name in formats:
        stored, arithmetic, bits, options = FORMATS[name]
        nbytes = INNER * HIDDEN * bits / 8
        copies = max(2, min(12, int(buffer / nbytes)))
        tensor = as_stored(weight, stored)
        compute = "float32" if arithmetic == "float32" else "bfloat16"
        rounding = engine.Quantization(**options)
        layers = [
            operations.PackedLinear([tensor], compute, quantization=rounding) for _ in range(copies)
        ]
        for m in rows:
            x = numbers(m, HIDDEN)
            others = {} if options else linear_rivals(x, weight, compute, copies)
            yield Case(
                f"linear {name}, M={m}",
                in_turn([partial(layer.apply, x, []) for layer in layers]),
                2.0 * m * INNER * HIDDEN,
                nbytes + 4.0 * m * (HIDDEN + INNER),
                arithmetic,
                others,
            )


def as_stored(values: Array, dtype: str) -> Any:
    """The same in the dtype of a checkpoint."""
    if dtype == "float32":
        return values
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16)


def linear_rivals(x: Array, weight: Array, compute: str, copies: int) -> dict[str, Work]:
    """The same product elsewhere."""
    rivals: dict[str, Work] = {}
    if compute == "float32":
        weights = [weight.copy() for _ in range(min(copies, 4))]
        rivals["NumPy"] = in_turn([partial(np.matmul, x, w.T) for w in weights])
    if torch := torch_module():
        dtype = getattr(torch, compute)
        tensors = [torch.from_numpy(weight).to(dtype).clone() for _ in range(min(copies, 4))]
        row = torch.from_numpy(x).to(dtype)
        linear = torch.nn.functional.linear
        rivals["torch"] = in_turn([partial(linear, row, tensor) for tensor in tensors])
    return rivals


def torch_module() -> Any:
    """torch if it is installed, else None."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")
    return torch


def attention_case(rows: int, length: int) -> Case:
    """One sequence, its last ``rows`` tokens as queries; keys and values packed on the way."""
    q = numbers(rows, HEADS, HEAD_DIM)
    k, v = numbers(length, KV_HEADS, HEAD_DIM), numbers(length, KV_HEADS, HEAD_DIM)
    pairs = rows * (length - (rows - 1) / 2)  # of a query and a key that it sees
    scale = HEAD_DIM**-0.5
    others: dict[str, Work] = {}
    if torch := torch_module():
        tq, tk, tv = (torch.from_numpy(a).transpose(0, 1)[None] for a in (q, k, v))
        mask = torch.ones(rows, length, dtype=torch.bool).tril(length - rows)
        attend = torch.nn.functional.scaled_dot_product_attention
        others["torch"] = lambda: attend(tq, tk, tv, attn_mask=mask, enable_gqa=True)
    return Case(
        f"attention, {rows} of {length} tokens",
        lambda: operations.attention(q, k, v, [rows], [length], 0, scale, True),
        4.0 * pairs * HEADS * HEAD_DIM,
        4.0 * (2 * length * KV_HEADS + 2 * rows * HEADS) * HEAD_DIM,
        others=others,
    )


def row_cases(rows: int) -> Iterator[Case]:
    """What works on rows: norm, rotation, activation."""
    x, w = numbers(rows, HIDDEN), np.ones(HIDDEN, np.float32)
    gate, up = numbers(rows, INNER), numbers(rows, INNER)
    heads, angles = numbers(rows, HEADS, HEAD_DIM), numbers(rows, HEAD_DIM // 2)
    cos, sin = np.cos(angles), np.sin(angles)

    def numpy_norm() -> Array:
        result: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w
        return result

    def numpy_rope() -> Array:
        a, b = heads[..., : HEAD_DIM // 2], heads[..., HEAD_DIM // 2 :]
        c, s = cos[:, None], sin[:, None]
        return np.concatenate((a * c - b * s, b * c + a * s), axis=-1)

    yield Case(
        f"rms_norm, {rows} rows", lambda: operations.rms_norm(x, w, 1e-5), 4.0 * x.size,
        8.0 * x.size, others={"NumPy": numpy_norm},
    )  # fmt: skip
    yield Case(
        f"rope, {rows} rows", lambda: operations.rope(heads, cos, sin), 3.0 * heads.size,
        8.0 * heads.size, others={"NumPy": numpy_rope},
    )  # fmt: skip
    yield Case(
        f"silu_mul, {rows} rows", lambda: operations.act_mul(gate, up, "silu"), 10.0 * gate.size,
        12.0 * gate.size, others={"NumPy": lambda: gate / (1 + np.exp(-gate)) * up},
    )  # fmt: skip


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The table."""
    groups: dict[str, Callable[[], Iterator[Case]]] = {
        "linear": lambda: linear_cases(options.rows, options.formats, options.buffer_mb << 20),
        "attention": lambda: iter(
            [attention_case(1, 128), attention_case(1, 4096), attention_case(512, 512)]
        ),
        "rows": lambda: itertools.chain(row_cases(1), row_cases(512)),
    }
    for name in options.only:
        yield from groups[name]()


def seconds_of(work: Work) -> float:
    """Of one call, out of as many as take some milliseconds."""
    once = report.timed(work)
    count = max(1, int(0.02 / max(once, 1e-6)))
    return report.timed(lambda: [work() for _ in range(count)]) / count


def row(case: Case, limits: Any, rounds: int) -> list[str]:
    """Measures a case: one line of the table."""
    seconds, shares = [], []
    ratios: dict[str, list[float]] = {name: [] for name in case.others or {}}
    by_reading = False
    case.ours()
    for _ in range(rounds):
        peak, read = limits.peak(case.arithmetic).gflops, limits.read_gbs()
        taken = seconds_of(case.ours)
        peak = (peak + limits.peak(case.arithmetic).gflops) / 2
        read = (read + limits.read_gbs()) / 2
        reading, computing = case.nbytes / (1e9 * read), case.flops / (1e9 * peak)
        by_reading = reading > computing
        seconds.append(taken)
        shares.append(100 * max(reading, computing) / taken)
        for name, work in (case.others or {}).items():
            ratios[name].append(seconds_of(work) / taken)
    return [
        case.name,
        report.spread([1e6 * s for s in seconds]),
        f"{1e-9 * case.flops / statistics.median(seconds):.4g}",
        f"{1e-9 * case.nbytes / statistics.median(seconds):.4g}",
        f"{report.spread(shares)} % of {'bandwidth' if by_reading else 'peak'}",
        *(
            f"{statistics.median(r):.2f}" if (r := ratios.get(n)) else ""
            for n in ("NumPy", "torch")
        ),
    ]


HEADER = ["operation", "µs", "GFLOP/s", "GB/s", "of the nearer limit", "NumPy", "torch"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser, rounds=5)
    groups = ["linear", "attention", "rows"]
    add = parser.add_argument
    add("--only", nargs="+", choices=groups, default=groups, help="(default: all)")
    add("--rows", nargs="+", type=report.positive, default=[1, 2, 4, 6, 8, 16, 32, 64, 128, 512])
    add("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="of the weights")
    add(
        "--buffer-mb",
        type=report.positive,
        default=BUFFER >> 20,
        help="read for the bandwidth, and of weights that take turns, at most (%(default)s)",
    )
    options = parser.parse_args()
    infinilm.set_num_threads(options.threads)
    if torch := torch_module():
        torch.set_num_threads(options.threads)
    limits = engine.Ceilings(options.buffer_mb << 20)
    rows = []
    for case in cases(options):
        report.progress(case.name)
        with torch.inference_mode() if torch else contextlib.nullcontext():
            rows.append(row(case, limits, options.rounds))
    report.progress("")
    print(f"{report.machine()}, {options.threads} threads, infinilm ({infinilm.cpu_level()})\n")
    print(report.table(HEADER, rows))
    report.write_json(options.json, [dict(zip(HEADER, cells, strict=True)) for cells in rows])


if __name__ == "__main__":
    main()
