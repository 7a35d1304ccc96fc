#!/usr/bin/env python3
"""What hooks and captures cost: a forward pass with none, with one that never matches, with one everywhere.

    python hooks.py                          the 150M shape, 128 tokens
    python hooks.py --tokens 1               one token, as in decode
    python hooks.py --shape tiny --rounds 50

In each round the plain pass (no registry) and the pass with each kind of hooks take turns. Printed
are the medians over the rounds: milliseconds of the pass, what it takes more than the plain pass of
the same round, by the clock and in CPU time (which hardly feels other processes), and the latter
divided by the number of callbacks that fired.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import infinilm
import models
import numpy as np
import report
from infinilm.benchmark.shapes import SHAPES

Setup = Callable[[infinilm.HookRegistry, list[str]], list[infinilm.Capture] | None]
FIRST_PASS = "every point, first pass after registering"
UNFUSED = ("_attention_scores", "_attention_weights")


def nothing(_name: str, _tensor: infinilm.Tensor, _layer: int) -> None:
    """Costs the call alone."""


def view(_name: str, tensor: infinilm.Tensor, _layer: int) -> None:
    """Looks at the tensor through NumPy, without a copy."""
    tensor.numpy()


def set_none(_registry: infinilm.HookRegistry, _names: list[str]) -> None:
    """Leaves the registry empty."""


def set_elsewhere(registry: infinilm.HookRegistry, _names: list[str]) -> None:
    """Sets one hook on a point that the model does not have."""
    registry.register_hook("layer9999_mlp", nothing)


def on_fused(callback: Callable[..., None]) -> Setup:
    """Sets a hook on every point but scores and weights, which need another attention."""

    def setup(registry: infinilm.HookRegistry, names: list[str]) -> None:
        for name in names:
            if not name.endswith(UNFUSED):
                registry.register_hook(name, callback)

    return setup


def on_residual(registry: infinilm.HookRegistry, _names: list[str]) -> None:
    """Sets the hook that people want most often: the residual stream of every layer."""
    registry.register_hook("layer#_output", view)


def capture_residual(registry: infinilm.HookRegistry, _names: list[str]) -> list[infinilm.Capture]:
    """The same values without a callback."""
    return [registry.capture("layer#_output")]


def capture_fused(registry: infinilm.HookRegistry, names: list[str]) -> list[infinilm.Capture]:
    """Captures every point but scores and weights."""
    return [registry.capture(name) for name in names if not name.endswith(UNFUSED)]


def on_unfused(registry: infinilm.HookRegistry, names: list[str]) -> None:
    """Sets a hook on the scores and weights of every layer."""
    for name in names:
        if name.endswith(UNFUSED):
            registry.register_hook(name, view)


CASES: dict[str, Setup] = {
    "registry, no hook": set_none,
    "one that never matches": set_elsewhere,
    "residual stream of each layer, NumPy view": on_residual,
    "residual stream of each layer, captured": capture_residual,
    "every point, empty function": on_fused(nothing),
    "every point, NumPy view": on_fused(view),
    "every point, captured": capture_fused,
    FIRST_PASS: on_fused(nothing),
    "scores and weights, NumPy view": on_unfused,
}


class Case:
    """A registry with its hooks, and what passes with it took."""

    def __init__(
        self,
        name: str,
        registry: infinilm.HookRegistry | None,
        captures: list[infinilm.Capture] | None = None,
    ) -> None:
        self.name = name
        self.registry = registry
        self.captures = captures or []
        self.milliseconds: list[float] = []
        self.cpu_milliseconds: list[float] = []
        self.fired = 0

    def run(self, model: infinilm.LlamaForCausalLM, ids: list[int]) -> None:
        """Times one pass."""
        model.set_hook_registry(self.registry)
        if self.name != FIRST_PASS:
            model.forward(ids[:1])  # which hook goes where is worked out once after each change
        for capture in self.captures:
            capture.take()
        cpu = time.process_time()
        seconds = report.timed(lambda: model.forward(ids, logits_to_keep=1))
        self.cpu_milliseconds.append(1e3 * (time.process_time() - cpu))
        self.milliseconds.append(1e3 * seconds)


def make_cases(model: infinilm.LlamaForCausalLM, ids: list[int]) -> list[Case]:
    """The plain pass first. Each is run once, to warm up and to count its callbacks."""
    names = [point.name for point in model.hook_points()]
    cases = [Case("plain", None)]
    for label, setup in CASES.items():
        registry = infinilm.HookRegistry()
        cases.append(Case(label, registry, setup(registry, names)))
    for case in cases:
        fired = 0

        def count(_name: str, _tensor: infinilm.Tensor, _layer: int) -> None:
            nonlocal fired
            fired += 1

        if case.registry is not None and case.registry.has_hooks():
            counting = infinilm.HookRegistry()
            for name in case.registry.names():
                counting.register_hook(name, count)
            model.set_hook_registry(counting)
            model.forward(ids)
        case.run(model, ids)
        case.milliseconds.clear()
        case.cpu_milliseconds.clear()
        case.fired = fired
    return cases


def row(case: Case, plain: Case) -> list[str]:
    """A line of the table."""
    pairs = zip(case.milliseconds, plain.milliseconds, strict=True)
    more = statistics.median([a - b for a, b in pairs])
    pairs = zip(case.cpu_milliseconds, plain.cpu_milliseconds, strict=True)
    cpu = [a - b for a, b in pairs]
    return [
        case.name,
        str(case.fired),
        report.spread(case.milliseconds),
        "" if case is plain else f"{more:.3g}",
        "" if case is plain else report.spread(cpu),
        f"{1e3 * statistics.median(cpu) / case.fired:.3g}" if case.fired else "",
    ]


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser, rounds=25)
    parser.add_argument(
        "--shape", choices=SHAPES, default="150m", help="random model (default: %(default)s)"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint instead of --shape")
    parser.add_argument("--format", choices=models.FORMATS, default="float32")
    parser.add_argument(
        "--tokens", type=report.positive, default=128, help="length of the pass (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=models.default_folder())
    options = parser.parse_args()
    # The hook that matches nothing is meant.
    warnings.filterwarnings("ignore", "(?s).*layer9999_mlp.*", UserWarning)

    directory = options.model or models.make_checkpoint_for(
        options.shape, options.format, options.folder
    )
    infinilm.set_num_threads(options.threads)
    model = models.load(directory, options.format)
    rng = np.random.default_rng(0)
    ids: list[Any] = rng.integers(0, model.config.vocab_size, options.tokens).tolist()
    cases = make_cases(model, ids)
    for turn in range(options.rounds):
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            case.run(model, ids)

    title = (
        f"{directory.name}, {options.format}, {options.tokens} tokens, {options.threads} threads, "
        f"{options.rounds} rounds, infinilm {infinilm.__version__} ({infinilm.cpu_level()})"
    )
    print(f"{report.machine()}\n{title}\n")
    header = [
        "hooks",
        "callbacks",
        "ms a pass",
        "ms more than plain",
        "CPU ms more",
        "CPU µs a callback",
    ]
    print(report.table(header, [row(case, cases[0]) for case in cases]))
    report.write_json(
        options.json,
        {
            "machine": report.machine(),
            "title": title,
            "cases": [
                {
                    "hooks": case.name,
                    "callbacks": case.fired,
                    "milliseconds": case.milliseconds,
                    "cpu_milliseconds": case.cpu_milliseconds,
                }
                for case in cases
            ],
        },
    )


if __name__ == "__main__":
    main()
