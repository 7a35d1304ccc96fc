"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from .. import engine


def processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: str = "cpu") -> str:
    """The processor, and the GPU before it if that is the device, in a line, without the host's name."""
    if device != "cpu":
        gpu = next(gpu for gpu in engine.cuda_devices() if f"cuda:{gpu.index}" == device)
        return f"{gpu.name} ({device}, {gpu.memory / 2**30:.0f} GiB); {machine()}"
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {processors()} processors, {platform.system()} {platform.machine()}"
