#!/usr/bin/env python3
"""What is left of the speed while another process keeps one core busy.

    python neighbour.py                     the 150M shape
    python neighbour.py --max-others 10     rounds in which other processes took more are left out

In each round prefill and decode run undisturbed and beside a process that does nothing but count,
in turn and in changing order. With n cores and n threads a fair system leaves n / (n + 1) of them:
two thirds on two cores, if nobody waits for a thread that is not running.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import infinilm
import models
import report


@dataclass
class Sample:
    """Tokens a second, and what other processes took of the machine meanwhile, in percent."""

    prefill: float
    decode: float
    others: float


@contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy, if wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # until it has started
        yield
    finally:
        process.kill()
        process.wait()


def cpu_seconds() -> float:
    """Of this process and of children that have ended."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def measure(
    model: infinilm.LlamaForCausalLM, options: argparse.Namespace, *, beside: bool
) -> Sample:
    """One round, with or without the neighbour."""
    prompt = [1 + i % 100 for i in range(options.prefill)]
    load, before = report.Load(), cpu_seconds()
    with busy_process(beside):
        prefill = report.timed(lambda: model.forward(prompt, logits_to_keep=1))
        cache = model.new_cache()
        model.forward(prompt[:8], cache, logits_to_keep=1)
        decode = report.timed(lambda: [model.forward([5], cache) for _ in range(options.decode)])
    return Sample(
        options.prefill / prefill, options.decode / decode, load.others(cpu_seconds() - before)
    )


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser, rounds=15)
    parser.add_argument("--shape", choices=models.SHAPES, default="150m")
    parser.add_argument("--format", choices=models.FORMATS, default="float32")
    parser.add_argument("--prefill", type=report.positive, default=128)
    parser.add_argument("--decode", type=report.positive, default=16)
    parser.add_argument("--max-others", type=float, default=math.inf, metavar="PERCENT")
    parser.add_argument("--folder", type=Path, default=models.default_folder())
    options = parser.parse_args()
    infinilm.set_num_threads(options.threads)
    checkpoint = models.make_checkpoint_for(options.shape, options.format, options.folder)
    model = models.load(checkpoint, options.format)
    measure(model, options, beside=False)
    rounds: list[tuple[Sample, Sample]] = []
    for turn in range(options.rounds):
        found = {
            beside: measure(model, options, beside=beside)
            for beside in (turn % 2 == 0, turn % 2 == 1)
        }
        rounds.append((found[False], found[True]))

    quiet = [pair for pair in rounds if not any(s.others > options.max_others for s in pair)]
    title = (
        f"{options.shape}, {options.format}, {options.threads} threads, {len(quiet)} of {len(rounds)} rounds, "
        f"infinilm {infinilm.__version__} ({infinilm.cpu_level()})"
    )
    print(f"{report.machine()}\n{title}\n")
    if quiet:
        rows = [
            [
                name,
                report.spread([getattr(alone, name) for alone, _ in quiet]),
                report.spread([getattr(b, name) / getattr(a, name) for a, b in quiet]),
                f"{max(s.others for pair in quiet for s in pair):.0f} %",
            ]
            for name in ("prefill", "decode")
        ]
        print(report.table(["", "tok/s alone", "beside / alone", "others' load, at most"], rows))
    report.write_json(
        options.json,
        {
            "machine": report.machine(),
            "title": title,
            "rounds": [[vars(sample) for sample in pair] for pair in rounds],
        },
    )


if __name__ == "__main__":
    main()
