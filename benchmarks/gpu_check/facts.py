"""The device, and its limits through torch: a large copy, and a large product of bfloat16.

A device that multiplies for longer than some 30 ms runs into its power limit and lowers its clock: an H200 goes
from 790 to 680 TFLOP/s. What is timed in a row is held against products in a row, what comes after a pause against
those after one.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

PAUSE = 0.1  # seconds, after which the device multiplies as fast as it can
LOAD = 0.3  # seconds in a row, in the second half of which it is as fast as it stays


def _nvidia_smi() -> str:
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        return str(error)


def _median_seconds(torch: Any, work: Callable[[], object], rounds: int = 20) -> float:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 4)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks[3:])]
    return statistics.median(times)


class Limits(NamedTuple):
    """Bytes a second, read and written, of a copy; operations a second of products in a row, and after a pause."""

    bandwidth: float
    rate: float
    rate_after_pause: float


def limits() -> Limits:
    """What the device can do."""
    import torch

    source = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copied = _median_seconds(torch, lambda: target.copy_(source))
    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    time.sleep(PAUSE)
    first = _median_seconds(torch, lambda: a @ b)
    rounds = round(LOAD / 2 / first)
    _median_seconds(torch, lambda: a @ b, rounds)
    later = _median_seconds(torch, lambda: a @ b, rounds)
    return Limits(2 * source.nbytes / copied, 2 * n**3 / later, 2 * n**3 / first)


def main() -> None:
    """Prints what this machine is and can do."""
    import infinilm
    import torch

    found = limits()
    facts = {
        "device": _nvidia_smi(),
        "torch": torch.__version__,
        "infinilm": infinilm.__version__,
        "copy, GB/s": round(found.bandwidth / 1e9),
        "bf16 products in a row, TFLOP/s": round(found.rate / 1e12),
        "bf16 product after a pause, TFLOP/s": round(found.rate_after_pause / 1e12),
    }
    print(json.dumps({"facts": facts}))


if __name__ == "__main__":
    main()
