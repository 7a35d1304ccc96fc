#!/usr/bin/env python3
"""How long loading takes, and how much memory, against reading the file and against copying it.

    python loading.py --stored bfloat16 --format bfloat16
    python loading.py --shape 1b --stored bfloat16 --format "int4 g32"

The file is in the page cache. In turn: reading it piece by piece into one small buffer, copying it
into fresh memory with one thread (what any loader has to write), and loading it.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
from pathlib import Path

import infinilm
import models
import numpy as np
import report


def read(file: Path) -> None:
    """Through one buffer, which stays in the processor's cache."""
    buffer = bytearray(1 << 20)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def copy(source: np.ndarray) -> None:
    """Into fresh memory, in large pages where the system gives them."""
    memory = mmap.mmap(-1, source.nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, np.uint8)[:] = source


def status(field: str) -> int:
    """Bytes, out of /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser)
    parser.add_argument("--shape", choices=models.SHAPES, default="150m")
    parser.add_argument("--stored", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--format", choices=models.FORMATS, default="float32")
    parser.add_argument("--folder", type=Path, default=models.default_folder())
    options = parser.parse_args()
    infinilm.set_num_threads(options.threads)
    directory = models.make_checkpoint(options.shape, options.stored, options.folder)
    file = directory / "model.safetensors"

    before = status("VmRSS")
    model = models.load(directory, options.format)
    peak, held = status("VmHWM") - before, model.nbytes
    del model
    source = np.fromfile(file, np.uint8)
    times: dict[str, list[float]] = {"read": [], "copy": [], "load": []}
    for _ in range(options.rounds):
        times["read"].append(report.timed(lambda: read(file)))
        times["copy"].append(report.timed(lambda: copy(source)))
        times["load"].append(report.timed(lambda: models.load(directory, options.format)))

    title = (
        f"{directory.name} in {options.format}, {options.threads} threads, {options.rounds} rounds, "
        f"infinilm {infinilm.__version__} ({infinilm.cpu_level()})"
    )
    print(f"{report.machine()}\n{title}\n")
    rows = [
        [
            name,
            report.spread([1e3 * t for t in taken]),
            f"{file.stat().st_size / statistics.median(taken) / 1e9:.2f}",
            report.spread([a / b for a, b in zip(times["load"], taken, strict=True)]),
        ]
        for name, taken in times.items()
    ]
    print(report.table(["", "ms", "GB/s", "load takes, times"], rows))
    print(f"\npeak {peak / 1e6:.0f} MB, weights {held / 1e6:.0f} MB: {peak / held:.3f}")
    report.write_json(
        options.json,
        {"title": title, "seconds": times, "peak_bytes": peak, "weight_bytes": held},
    )


if __name__ == "__main__":
    main()
