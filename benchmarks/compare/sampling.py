"""Samples of the candidates, in turn, with the machine's limits measured beside each."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report
from candidates import Candidate
from infinilm import engine
from peers.base import read_config
from worker import Failed, Worker


@dataclass
class Sample:
    """One prefill and one decode."""

    round: int
    prefill: float  # tokens a second
    decode: float
    read_gbs: float
    peak_gflops: float
    prefill_others: float  # percent of the machine that other processes took
    decode_others: float


@dataclass
class Result:
    """All samples of one candidate."""

    candidate: Candidate
    version: str = ""
    nbytes_per_pass: int = 0
    instruction: str = ""
    load_seconds: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    tokens: list[int] = field(default_factory=list)  # of the first prompt
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    def of_round(self, number: int, name: str) -> float:
        """The median of one figure over a round."""
        values: list[float] = [getattr(s, name) for s in self.samples if s.round == number]
        return statistics.median(values)


@dataclass(frozen=True)
class Work:
    """What every engine is asked to do."""

    checkpoint: Path
    cache: Path
    threads: int
    prefill: int
    prompt: int
    decode: int
    repeats: int
    max_others: float


def compare(chosen: list[Candidate], work: Work, rounds: int) -> list[Result]:
    """Each candidate once in each round, in another order each time; one process at a time."""
    results = [Result(candidate) for candidate in chosen]
    order = random.Random(0)
    for number in range(rounds):
        for done, result in enumerate(order.sample(results, len(results))):
            if result.failure:
                continue
            report.progress(f"round {number + 1} of {rounds}: {done} of {len(results)} done")
            try:
                _take_turn(result, work, number)
            except Failed as failure:
                result.failure = str(failure)
    report.progress("")
    return results


def _take_turn(result: Result, work: Work, number: int) -> None:
    """Loads, warms up, takes the round's samples, ends the process."""
    kind = result.candidate.kind
    arguments = (work.checkpoint, work.cache, kind, work.threads)
    with Worker(result.candidate.peer, *arguments) as worker:
        result.version = worker.version
        result.nbytes_per_pass = worker.nbytes_per_pass
        result.load_seconds.append(worker.load_seconds)
        limits = engine.Ceilings(max(worker.nbytes_per_pass, 1 << 24))
        vocab = int(read_config(work.checkpoint)["vocab_size"])
        worker.ask(prompt=work.prefill, new_tokens=2, seed=0, vocab=vocab)
        for repeat in range(work.repeats):
            seed = number * work.repeats + repeat
            sample, reply = _sample(worker, work, limits, kind.arithmetic, seed, vocab)
            sample.round = number
            result.samples.append(sample)
            result.tokens = result.tokens or reply["tokens"]
            result.rss_mb = max(result.rss_mb, reply["rss_mb"])
        result.instruction = limits.peak(kind.arithmetic).instruction


def _sample(
    worker: Worker, work: Work, limits: Any, arithmetic: str, seed: int, vocab: int
) -> tuple[Sample, dict[str, Any]]:
    common = {"seed": seed, "vocab": vocab}
    decode, decode_others, read = _beside(
        lambda: worker.ask(prompt=work.prompt, new_tokens=work.decode + 1, **common),
        limits.read_gbs,
        work.max_others,
    )
    prefill, prefill_others, peak = _beside(
        lambda: worker.ask(prompt=work.prefill, new_tokens=1, **common),
        lambda: limits.peak(arithmetic).gflops,
        work.max_others,
    )
    sample = Sample(
        round=0,
        prefill=work.prefill / prefill["first"],
        decode=work.decode / decode["rest"],
        read_gbs=read,
        peak_gflops=peak,
        prefill_others=prefill_others,
        decode_others=decode_others,
    )
    return sample, decode


def _beside(
    ask: Callable[[], dict[str, Any]], limit: Callable[[], float], max_others: float
) -> tuple[dict[str, Any], float, float]:
    """The reply, what others took meanwhile, and the mean of the limit before and after.

    Waits before, and repeats up to three times, while others take more than they may.
    """
    best: tuple[dict[str, Any], float, float] | None = None
    for _ in range(4):
        report.wait_for_quiet(max_others)
        before = limit()
        load = report.Load()
        reply = ask()
        others = load.others(reply["cpu"])
        found = (reply, others, (before + limit()) / 2)
        if best is None or others < best[1]:
            best = found
        if not others > max_others:
            break
    assert best is not None
    return best
