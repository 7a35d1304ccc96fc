#!/usr/bin/env python3
"""Prefill and decode speed of infinilm and of Transformers, beside the machine's limits.

    python run.py                                     the 150M shape, float32
    python run.py --shape 1b --store bfloat16 --dtype float32 bfloat16 --threads 2
    python run.py --peers none --rounds 3             infinilm alone
    python run.py --model DIR                         a checkpoint of yours (Llama architecture)

Each engine has a process of its own and runs the same checkpoint with the same dtype and number of
threads. They take turns: in each round each of them runs a short prompt (decode: time between the
first new token and the last) and a long one (prefill: tokens of the prompt over the time to the
first new token). Read bandwidth and peak arithmetic are measured right before and after each.
Printed are medians over the rounds with the lowest and the highest; ratios are taken round by
round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import models
import report
from ceilings import Ceilings
from engines import ENGINES, Worker

PEERS = [name for name in ENGINES if name != "infinilm"]


@dataclass
class Sample:
    """One round of one engine."""

    prefill: float  # tokens a second
    decode: float
    prefill_cpu: float  # CPU seconds for the whole prompt
    decode_cpu: float  # CPU seconds for prompt and continuation
    read_gbs: float  # the machine's limits beside it
    peak_gflops: float
    prefill_others: float  # percent of the machine that other processes took
    decode_others: float


@dataclass
class Result:
    """All rounds of one engine."""

    engine: str
    version: str
    load_seconds: float
    kept_bytes: int
    samples: list[Sample] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rss_mb: float = 0.0

    def values(self, name: str) -> list[float]:
        """One field of all samples."""
        return [getattr(sample, name) for sample in self.samples]


@dataclass(frozen=True)
class Work:
    """What every engine is asked to do."""

    shape: models.ModelShape
    dtype: str
    prefill: int
    prompt: int
    decode: int
    max_others: float


def run_quietly(worker: Worker, max_others: float, **request: Any) -> tuple[dict[str, Any], float]:
    """Waits for other processes to calm down; asks again, a few times, if they did not stay calm."""
    best: tuple[dict[str, Any], float] | None = None
    for _ in range(4):
        report.wait_for_quiet(max_others)
        load = report.Load()
        reply = worker.ask(**request)
        others = load.others(reply["cpu"])
        if best is None or others < best[1]:
            best = (reply, others)
        if not others > max_others:
            break
    assert best is not None
    return best


def take_sample(worker: Worker, work: Work, limits: Ceilings, seed: int, result: Result) -> None:
    """One prefill and one decode, the limits before and after."""
    common = {"seed": seed, "vocab": work.shape.vocab}
    reads = [limits.read_gbs()]
    decode, decode_others = run_quietly(
        worker, work.max_others, prompt=work.prompt, new_tokens=work.decode + 1, **common
    )
    reads.append(limits.read_gbs())
    peaks = [limits.peak(work.dtype).gflops]
    prefill, prefill_others = run_quietly(
        worker, work.max_others, prompt=work.prefill, new_tokens=1, **common
    )
    peaks.append(limits.peak(work.dtype).gflops)
    result.samples.append(
        Sample(
            prefill=work.prefill / prefill["first"],
            decode=work.decode / decode["rest"],
            prefill_cpu=prefill["cpu"],
            decode_cpu=decode["cpu"],
            read_gbs=statistics.mean(reads),
            peak_gflops=statistics.mean(peaks),
            prefill_others=prefill_others,
            decode_others=decode_others,
        )
    )
    result.tokens = decode["tokens"]
    result.rss_mb = prefill["rss_mb"]


def compare(
    names: list[str], directory: Path, work: Work, limits: Ceilings, rounds: int
) -> list[Result]:
    """Runs all engines in turn; who begins changes from round to round. A first round warms up."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    stored = 4 if (config.get("dtype") or config.get("torch_dtype")) == "float32" else 2
    workers = [Worker(name, directory, work.dtype, limits.threads) for name in names]
    try:
        results = [
            Result(
                worker.name,
                worker.version,
                worker.load_seconds,
                ENGINES[worker.name].kept_bytes(stored, work.dtype),
            )
            for worker in workers
        ]
        pairs = list(zip(workers, results, strict=True))
        for turn in range(rounds + 1):
            report.progress(f"{directory.name}, {work.dtype}: round {turn} of {rounds}")
            for worker, result in pairs if turn % 2 else reversed(pairs):
                take_sample(worker, work, limits, turn, result)
        report.progress("")
        for result in results:
            del result.samples[0]
    finally:
        for worker in workers:
            worker.__exit__()
    return results


def speed_row(result: Result, work: Work) -> list[str]:
    """An engine's line of the first table."""
    layer, head = work.shape.layer_parameters, work.shape.head_parameters
    gflops = [2e-9 * layer * sample.prefill for sample in result.samples]
    gbs = [1e-9 * result.kept_bytes * (layer + head) * sample.decode for sample in result.samples]
    of_peak = [100 * x / s.peak_gflops for x, s in zip(gflops, result.samples, strict=True)]
    of_read = [100 * x / s.read_gbs for x, s in zip(gbs, result.samples, strict=True)]
    others = result.values("prefill_others") + result.values("decode_others")
    return [
        result.engine,
        report.spread(result.values("prefill")),
        f"{statistics.median(gflops):.4g}",
        f"{statistics.median(of_peak):.0f} %",
        report.spread(result.values("decode")),
        f"{statistics.median(gbs):.4g}",
        f"{statistics.median(of_read):.0f} %",
        f"{result.load_seconds:.2f}",
        f"{result.rss_mb:.0f}",
        f"{statistics.median(others):.0f} %",
    ]


SPEEDS = [
    "engine",
    "prefill tok/s",
    "GFLOP/s",
    "of peak",
    "decode tok/s",
    "GB/s of weights",
    "of bandwidth",
    "load s",
    "peak MB",
    "others' load",
]


def ratio_row(mine: Result, other: Result) -> list[str]:
    """A peer's line of the second table; CPU time is less sensitive to other processes."""

    def ratios(name: str, inverse: bool = False) -> str:
        pairs = zip(mine.values(name), other.values(name), strict=True)
        return report.spread([b / a if inverse else a / b for a, b in pairs])

    equal = 0
    for a, b in zip(mine.tokens, other.tokens, strict=True):
        if a != b:
            break
        equal += 1
    return [
        f"infinilm / {other.engine}",
        ratios("prefill"),
        ratios("decode"),
        ratios("prefill_cpu", inverse=True),
        ratios("decode_cpu", inverse=True),
        f"{equal} of {len(mine.tokens)}",
    ]


RATIOS = [
    "times as fast",
    "prefill",
    "decode",
    "prefill, by CPU time",
    "decode, by CPU time",
    "first tokens equal",
]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser)
    parser.add_argument(
        "--shape", choices=models.SHAPES, default="150m", help="random model (default: %(default)s)"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint instead of --shape")
    parser.add_argument(
        "--store",
        choices=models.DTYPES,
        help="dtype of the checkpoint's file (default: the one computed with)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        nargs="+",
        default=["float32"],
        help="dtypes to compute with (default: float32)",
    )
    parser.add_argument(
        "--peers",
        choices=[*PEERS, "none"],
        nargs="+",
        default=PEERS,
        help="engines to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--prefill", type=report.positive, default=512, help="prompt for prefill (%(default)s)"
    )
    parser.add_argument(
        "--prompt", type=report.positive, default=128, help="prompt before decode (%(default)s)"
    )
    parser.add_argument(
        "--decode", type=report.positive, default=64, help="tokens to decode (%(default)s)"
    )
    parser.add_argument(
        "--max-others",
        type=float,
        default=100.0,
        metavar="PERCENT",
        help="wait (up to half a minute) before a sample while other processes take more of the "
        "machine than this, and repeat it (up to three times) if they did (default: no limit)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=models.default_folder(),
        help="where random checkpoints are kept between runs (default: %(default)s)",
    )
    return parser.parse_args()


def shape_of(directory: Path) -> models.ModelShape:
    """The sizes of a checkpoint of the user's."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    return models.ModelShape(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings")),
    )


def print_results(title: str, work: Work, limits: Ceilings, results: list[Result]) -> None:
    """Both tables of one dtype."""
    reads = [value for result in results for value in result.values("read_gbs")]
    peaks = [value for result in results for value in result.values("peak_gflops")]
    print(f"\n{title}")
    print(
        f"limits with {limits.threads} threads: read {report.spread(reads)} GB/s, "
        f"{limits.peak(work.dtype).instruction} {report.spread(peaks)} GFLOP/s\n"
    )
    print(report.table(SPEEDS, [speed_row(result, work) for result in results]), flush=True)
    if len(results) > 1:
        rows = [ratio_row(results[0], other) for other in results[1:]]
        print("\n" + report.table(RATIOS, rows), flush=True)


def main() -> None:
    """Runs and prints."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = parse_arguments()
    peers = [] if "none" in options.peers else options.peers
    limits = Ceilings(options.threads)
    print(f"{report.machine()}, {date.today()}")
    written = []
    for dtype in options.dtype:
        stored = options.store or dtype
        directory = options.model or models.make_checkpoint(options.shape, stored, options.folder)
        shape = shape_of(directory) if options.model else models.SHAPES[options.shape]
        work = Work(
            shape, dtype, options.prefill, options.prompt, options.decode, options.max_others
        )
        results = compare(["infinilm", *peers], directory, work, limits, options.rounds)
        title = (
            f"{directory.name} ({shape.layer_parameters / 1e6:.4g} M parameters in the layers, "
            f"{shape.head_parameters / 1e6:.4g} M in the head), {dtype} arithmetic, prefill "
            f"{work.prefill}, decode {work.decode} after {work.prompt}, {options.rounds} rounds: "
            + "; ".join(result.version for result in results)
        )
        print_results(title, work, limits, results)
        written.append({"title": title, "results": [asdict(result) for result in results]})
    report.write_json(
        options.json,
        {"machine": report.machine(), "date": str(date.today()), "threads": options.threads,
         "runs": written},
    )  # fmt: skip


if __name__ == "__main__":
    main()
