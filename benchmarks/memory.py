#!/usr/bin/env python3
"""Peak resident memory of loading and of a forward pass, beside what has to be there.

    python memory.py --shape 1b --cache DIR
    python memory.py --model DIR --formats bfloat16 "int4 g32" --kv-cache-dtype int8

What has to be there: the packed weights and, after the pass, the KV cache. The peak is the highest
that the process has reached, the mapped pages of the checkpoint's file included, less what it had
before loading. Each format runs in a process of its own. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import infinilm
import models
import numpy as np
import report
from infinilm.benchmark.shapes import SHAPES


def measure(
    label: str, checkpoint: Path, tokens: int, threads: int, kv_cache_dtype: str | None
) -> dict[str, Any]:
    """All figures of a format, in MB; runs in a process of its own."""
    infinilm.set_num_threads(threads)
    rng = np.random.default_rng(0)
    before = report.peak_rss_mb()
    model = models.load(checkpoint, label, kv_cache_dtype)
    loaded = report.peak_rss_mb() - before
    cache = model.new_cache()
    ids = rng.integers(0, model.config.vocab_size, tokens)
    model.forward(ids, cache, logits_to_keep=1)
    return {
        "format": label,
        "weights": model.nbytes / 2**20,
        "cache": cache.nbytes() / 2**20,
        "load": loaded,
        "forward": report.peak_rss_mb() - before,
    }


def row(figures: dict[str, Any]) -> list[str]:
    """A line of the table."""
    needed = figures["weights"] + figures["cache"]
    return [
        figures["format"],
        f"{figures['weights']:.0f}",
        f"{figures['cache']:.1f}",
        f"{figures['load']:.0f}",
        f"{100 * (figures['load'] / figures['weights'] - 1):+.1f} %",
        f"{figures['forward']:.0f}",
        f"{100 * (figures['forward'] / needed - 1):+.1f} %",
    ]


HEADER = [
    "format",
    "weights MiB",
    "KV cache MiB",
    "peak of load MiB",
    "over the weights",
    "peak after the pass MiB",
    "over weights and cache",
]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="150m", help="random model (default: %(default)s)")
    add("--model", type=Path, metavar="DIR", help="a checkpoint instead of --shape")
    add(
        "--formats",
        nargs="+",
        choices=models.FORMATS,
        default=list(models.FORMATS),
        help="(default: all)",
    )
    add("--kv-cache-dtype", choices=models.KV_DTYPES, help="(default: what is computed in)")
    add("--tokens", type=report.positive, default=512, help="of the pass (%(default)s)")
    add("--threads", type=report.positive, default=report.processors())
    add("--cache", type=Path, default=models.default_folder(), help="where checkpoints are kept")
    add("--json", metavar="FILE", type=Path, help="write the figures")
    options = parser.parse_args()
    checkpoint = options.model or models.make_checkpoint(options.shape, "bfloat16", options.cache)
    work = partial(
        measure, checkpoint=checkpoint, tokens=options.tokens, threads=options.threads,
        kv_cache_dtype=options.kv_cache_dtype,
    )  # fmt: skip
    results = []
    for label in options.formats:
        report.progress(label)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(work, (label,)))
    report.progress("")
    print(f"{checkpoint.name}, a pass of {options.tokens} tokens, {options.threads} threads\n")
    print(report.table(HEADER, [row(r) for r in results]))
    report.write_json(options.json, results)


if __name__ == "__main__":
    main()
