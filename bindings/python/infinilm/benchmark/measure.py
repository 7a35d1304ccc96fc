"""Samples of a model's speed, each with its device's limits measured right beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import engine
from .shapes import layer_parameters

if TYPE_CHECKING:
    from ..model import LlamaForCausalLM

_LEAST_READ = 1 << 24  # bytes: a smaller model is limited by other things than memory


@dataclass(frozen=True)
class Work:
    """What a sample runs: ``batch`` prompts at once, then so many more tokens of each."""

    prompt_tokens: int
    new_tokens: int
    batch: int


@dataclass(frozen=True)
class Sample:
    """One run. Rates of a batch count the tokens of all its sequences."""

    prefill_tokens_per_second: float
    prefill_gflops: float  # 2 x parameters of the layers x tokens a second; the head is left out
    peak_gflops: float  # the mean of before and after
    prefill_of_peak: float
    decode_tokens_per_second: float
    decode_gbs: float  # weights read in a pass x passes a second
    read_gbs: float
    decode_of_bandwidth: float


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Bench:
    """A model and the limits it is held against."""

    def __init__(self, model: LlamaForCausalLM, arithmetic: str) -> None:
        """``arithmetic``: of the matrix products: float32, bfloat16, int8 (CPU) or float16 (CUDA)."""
        self._model = model._engine
        self._arithmetic = arithmetic
        self._config = model.config
        self.nbytes_per_pass = self._model.nbytes_per_pass()
        # As much as the model's weights: what the caches can do for it, they can for them.
        self.ceilings = engine.Ceilings(max(self.nbytes_per_pass, _LEAST_READ), model.device)
        self.instruction = self.ceilings.peak(arithmetic).instruction

    def sample(self, work: Work, seed: int) -> Sample:
        """One run of ``work`` on random tokens."""
        generation = self._start(work, seed)
        prefill, peak = _beside(generation.step, self._peak_gflops)

        def decode_all() -> None:
            for _ in range(work.new_tokens):
                generation.step()

        decode, read = _beside(decode_all, self.ceilings.read_gbs)
        prefill_rate = work.batch * work.prompt_tokens / prefill
        gflops = 2e-9 * layer_parameters(self._config) * prefill_rate
        passes = work.new_tokens / decode
        gbs = 1e-9 * self.nbytes_per_pass * passes
        return Sample(
            prefill_tokens_per_second=prefill_rate,
            prefill_gflops=gflops,
            peak_gflops=peak,
            prefill_of_peak=gflops / peak,
            decode_tokens_per_second=work.batch * passes,
            decode_gbs=gbs,
            read_gbs=read,
            decode_of_bandwidth=gbs / read,
        )

    def samples(self, works: list[Work], rounds: int) -> Iterator[tuple[Work, Sample]]:
        """All works in turn, ``rounds`` times, after a first round that warms up and is thrown away."""
        for turn in range(rounds + 1):
            for work in works:
                sample = self.sample(work, turn)
                if turn:
                    yield work, sample

    def _start(self, work: Work, seed: int) -> engine.Generation:
        rng = np.random.default_rng(seed)
        prompts = rng.integers(0, self._config.vocab_size, (work.batch, work.prompt_tokens))
        config = engine.GenerationConfig(max_new_tokens=work.new_tokens + 1, eos_token_id=[])
        return engine.Generation(self._model, prompts.tolist(), config)

    def _peak_gflops(self) -> float:
        return self.ceilings.peak(self._arithmetic).gflops


def _beside(work: Callable[[], object], limit: Callable[[], float]) -> tuple[float, float]:
    """Seconds of ``work``, and the mean of a limit measured right before and right after."""
    before = limit()
    seconds = timed(work)
    return seconds, (before + limit()) / 2


def spread(values: list[float]) -> str:
    """Median (lowest–highest), as a table shows it."""
    return f"{statistics.median(values):.4g} ({min(values):.4g}–{max(values):.4g})"


def figures(samples: list[Sample], name: str) -> list[float]:
    """One figure of all samples."""
    return [getattr(sample, name) for sample in samples]


def median(samples: list[Sample], name: str) -> float:
    """The same, its median."""
    return statistics.median(figures(samples, name))


def arithmetic_of(model: Any, activations: str | None) -> str:
    """The number format that matrix products are computed in."""
    return activations or str(model.config.dtype)
