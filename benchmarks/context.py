#!/usr/bin/env python3
"""Decode after a short and after a long context, against the bytes of keys and values that come on top.

    python context.py --shape 1b --formats bfloat16 "int4 g32"
    python context.py --contexts 128 1024 --kv-cache-dtypes int8

For each number format and each dtype of the KV cache both contexts take turns, round by round, the
same cache each time, cut back to its context. "Takes" is the time of a token after the long context
over the time after the short one, "bytes" the same of the weights, keys and values that are read for
it, and "over the bytes" the one over the other.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import infinilm
import models
import numpy as np
import report
from infinilm.benchmark.shapes import SHAPES


class Context:
    """A sequence of so many tokens, to which a few are added again and again."""

    def __init__(self, model: infinilm.LlamaForCausalLM, tokens: int, kv_cache_dtype: str) -> None:
        self._model = model
        self._tokens = tokens
        self._cache = model.new_cache(dtype=kv_cache_dtype)
        before = self._cache.nbytes()
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, tokens)
        model.forward(ids, self._cache, logits_to_keep=1)
        self.nbytes = self._cache.nbytes() - before

    def seconds_a_token(self, count: int) -> float:
        """Of ``count`` tokens, one by one."""
        seconds = report.timed(
            lambda: [self._model.forward([5], self._cache) for _ in range(count)]
        )
        self._cache.truncate(self._tokens)
        return seconds / count


def measure(
    model: infinilm.LlamaForCausalLM, kv_cache_dtype: str, options: argparse.Namespace
) -> dict[str, Any]:
    """All rounds of one kind of cache."""
    contexts = [Context(model, tokens, kv_cache_dtype) for tokens in options.contexts]
    for context in contexts:
        context.seconds_a_token(2)
    seconds: list[list[float]] = [[], []]
    for turn in range(options.rounds):
        for i in (0, 1) if turn % 2 else (1, 0):
            seconds[i].append(contexts[i].seconds_a_token(options.decode))
    weights = model._engine.nbytes_per_pass()
    return {
        "kv_cache_dtype": kv_cache_dtype,
        "seconds": seconds,
        "bytes": [weights + context.nbytes for context in contexts],
    }


def row(figures: dict[str, Any]) -> list[str]:
    """A line of the table."""
    short, long = figures["seconds"]
    takes = [b / a for a, b in zip(short, long, strict=True)]
    more = figures["bytes"][1] / figures["bytes"][0]
    return [
        figures["format"],
        figures["kv_cache_dtype"],
        report.spread([1 / s for s in short]),
        report.spread([1 / s for s in long]),
        report.spread(takes),
        f"{more:.3f}",
        f"{100 * (statistics.median(takes) / more - 1):+.1f} %",
    ]


def block_multiple(text: str) -> int:
    """A length that fills blocks of the cache, so that what it holds is what is read."""
    value = report.positive(text)
    if value % 64:
        raise argparse.ArgumentTypeError(f"expected a multiple of 64, found {text}")
    return value


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser, rounds=9)
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="150m", help="random model (default: %(default)s)")
    add("--formats", nargs="+", choices=models.FORMATS, default=["bfloat16"])
    add("--kv-cache-dtypes", nargs="+", choices=models.KV_DTYPES, default=list(models.KV_DTYPES))
    add("--contexts", nargs=2, type=block_multiple, default=[128, 4096], metavar=("SHORT", "LONG"))
    add("--decode", type=report.positive, default=16, help="tokens of a sample (%(default)s)")
    add("--folder", type=Path, default=models.default_folder())
    options = parser.parse_args()
    infinilm.set_num_threads(options.threads)
    results = []
    for name in options.formats:
        checkpoint = models.make_checkpoint_for(options.shape, name, options.folder)
        model = models.load(checkpoint, name)
        for dtype in options.kv_cache_dtypes:
            report.progress(f"{name}, {dtype}")
            results.append({"format": name, **measure(model, dtype, options)})
    report.progress("")
    short, long = options.contexts
    title = (
        f"{options.shape}, {options.threads} threads, {options.rounds} rounds of {options.decode} tokens, "
        f"infinilm {infinilm.__version__} ({infinilm.cpu_level()})"
    )
    print(f"{report.machine()}\n{title}\n")
    header = ["format", "KV cache", f"tok/s after {short}", f"after {long}", "takes", "bytes"]
    print(report.table([*header, "over the bytes"], list(map(row, results))))
    report.write_json(options.json, {"title": title, "results": results})


if __name__ == "__main__":
    main()
