"""A picture of what was measured. matplotlib is imported here only."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from .measure import figures, median

if TYPE_CHECKING:
    from .measure import Sample, Work

_COLOUR, _LIMIT = "#3465a4", "#888888"


def require_matplotlib() -> None:
    """ImportError with the way out where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('--plot needs matplotlib: pip install "infinilm[plot]"')


def plot(results: dict[Work, list[Sample]], title: str, instruction: str, file: str) -> None:
    """Prefill and decode over the batch, every sample a dot, beside their limits."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(title, fontsize=8, wrap=True)
    left, right = figure.subplots(1, 2)
    _panel(left, results, "prefill_gflops", "peak_gflops", "prefill_of_peak")
    left.set_ylabel(f"prefill, GFLOP/s (line: {instruction})")
    _panel(right, results, "decode_gbs", "read_gbs", "decode_of_bandwidth")
    right.set_ylabel("decode, GB/s of weights (line: reading alone)")
    figure.savefig(file)


def _panel(axes: Any, results: dict[Work, list[Sample]], name: str, limit: str, share: str) -> None:
    for x, samples in enumerate(results.values()):
        values = figures(samples, name)
        axes.bar(x, median(samples, name), width=0.6, color=_COLOUR, alpha=0.6)
        axes.plot([x] * len(values), values, ".", color=_COLOUR)
        ceiling = median(samples, limit)
        axes.plot([x - 0.4, x + 0.4], [ceiling, ceiling], color=_LIMIT)
        axes.annotate(
            f"{100 * median(samples, share):.0f} %", (x, ceiling), ha="center", va="bottom"
        )
    axes.set_xticks(range(len(results)), [str(work.batch) for work in results])
    axes.set_xlabel("batch")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
