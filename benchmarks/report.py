"""What the benchmarks share: arguments, tables, the load of other processes."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infinilm.benchmark.machine import machine, processors
from infinilm.benchmark.measure import spread, timed

__all__ = ["machine", "processors", "spread", "timed"]


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above zero, found {text}")
    return value


def add_common_arguments(parser: argparse.ArgumentParser, rounds: int = 7) -> None:
    """--threads, --rounds and --json."""
    parser.add_argument(
        "--threads",
        type=positive,
        default=processors(),
        help="threads (default: %(default)s, the processors that this process may use)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        help="rounds; everything takes its turn in each, and medians over the rounds are printed "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to FILE")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that reads well in a terminal; all columns but the first to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def write_json(path: Path | None, content: Any) -> None:
    """Writes ``content``, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def peak_rss_mb() -> float:
    """The most memory that this process has had in use so far, mapped files included."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # ru_maxrss would begin with what the parent had.
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def busy_seconds() -> float | None:
    """CPU seconds of all processes together so far; None where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Load:
    """How much of the machine other processes took while something ran, in percent."""

    def __init__(self) -> None:
        self._busy = busy_seconds()
        self._start = time.perf_counter()

    def others(self, own_cpu_seconds: float) -> float:
        """Since this was made; NaN where the system does not say.

        The system counts in ticks (10 ms as a rule): of a shorter time this may be over 100.
        """
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return float("nan")
        wall = time.perf_counter() - self._start
        share = (busy - self._busy - own_cpu_seconds) / (wall * (os.cpu_count() or 1))
        return 100 * max(0.0, share)


def wait_for_quiet(max_others: float, patience: float = 30.0) -> None:
    """Sleeps until other processes take at most so many percent of the machine, or for so long."""
    end = time.perf_counter() + patience
    while max_others < math.inf and time.perf_counter() < end:
        load = Load()
        time.sleep(0.3)
        if not load.others(0.0) > max_others:
            return


def progress(text: str) -> None:
    """Says where a long run is, on a terminal; an empty text ends it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
