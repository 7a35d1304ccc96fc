"""The device, and its two limits through torch: a large copy, and a large product of bfloat16."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from typing import Any


def _nvidia_smi() -> str:
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        return str(error)


def _median_seconds(torch: Any, work: Callable[[], object], rounds: int = 20) -> float:
    times = []
    for _ in range(rounds + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times[3:])


def limits() -> tuple[float, float]:
    """Bytes a second, read and written, of a copy; operations a second of a product."""
    import torch

    source = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copied = _median_seconds(torch, lambda: target.copy_(source))
    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    multiplied = _median_seconds(torch, lambda: a @ b)
    return 2 * source.nbytes / copied, 2 * n**3 / multiplied


def main() -> None:
    """Prints what this machine is and can do."""
    import infinilm
    import torch

    bandwidth, rate = limits()
    facts = {
        "device": _nvidia_smi(),
        "torch": torch.__version__,
        "infinilm": infinilm.__version__,
        "copy, GB/s": round(bandwidth / 1e9),
        "bf16 product, TFLOP/s": round(rate / 1e12),
    }
    print(json.dumps({"facts": facts}))


if __name__ == "__main__":
    main()
