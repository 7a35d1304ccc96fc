#!/usr/bin/env python3
"""What this machine can do at best: memory read bandwidth and peak arithmetic, with N threads.

Compiles ceilings.cpp for this very processor (about two seconds; the C++ compiler is $CXX, else
c++) and measures. The other benchmarks call it between their own samples, since both limits move
with the neighbours of a machine.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import report

SOURCE = Path(__file__).with_name("ceilings.cpp")
FLAGS = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
# Larger than any last-level cache of a desktop or of one socket that we know of.
BUFFER_MB = 512
ROUNDS = 2_000_000  # of arithmetic, some 10 ms
TRIES = 3  # a limit is what was reached at best


def compile_library() -> ctypes.CDLL:
    """Builds and loads ceilings.cpp; ends the program with a line if there is no compiler."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        raise SystemExit(f"no C++ compiler {compiler[0]!r}: install one or name it in $CXX")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ceilings.so"
        subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.read_rate.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    loaded.read_rate.restype = ctypes.c_double
    for name in ("fma_rate", "dot_bf16_rate"):
        getattr(loaded, name).argtypes = [ctypes.c_int64, ctypes.c_int]
        getattr(loaded, name).restype = ctypes.c_double
    return loaded


def huge_pages(size: int) -> mmap.mmap:
    """Memory in pages as large as the system gives, which read a little faster."""
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def best(measure: Callable[[], float]) -> float:
    """The highest of a few tries right after one another."""
    return max(measure() for _ in range(TRIES))


@dataclass(frozen=True)
class Peak:
    """The fastest arithmetic for a number format."""

    instruction: str
    gflops: float


class Ceilings:
    """The limits of the machine for ``threads`` threads; each call measures anew."""

    def __init__(self, threads: int, buffer_mb: int = BUFFER_MB) -> None:
        self.threads = threads
        self._library = compile_library()
        self._buffer = np.frombuffer(huge_pages(buffer_mb << 20), np.uint8)
        # Written to, since untouched memory is one page of zeros, read from the cache.
        self._buffer[:] = 1

    def read_gbs(self, threads: int | None = None) -> float:
        """Reads the buffer: GB/s."""
        address, size = self._buffer.ctypes.data, self._buffer.nbytes
        return best(lambda: self._library.read_rate(address, size, threads or self.threads)) / 1e9

    def fma_gflops(self, threads: int | None = None) -> float:
        """Fused float32 multiply-adds at the widest vectors: GFLOP/s."""
        return best(lambda: self._library.fma_rate(ROUNDS, threads or self.threads)) / 1e9

    def dot_bf16_gflops(self, threads: int | None = None) -> float:
        """The same for vdpbf16ps; 0 where the processor has none."""
        return best(lambda: self._library.dot_bf16_rate(ROUNDS, threads or self.threads)) / 1e9

    def peak(self, dtype: str) -> Peak:
        """The best that the processor can do for a dtype ("float32" or "bfloat16")."""
        dot = self.dot_bf16_gflops() if dtype == "bfloat16" else 0.0
        return Peak("vdpbf16ps", dot) if dot else Peak("f32 FMA", self.fma_gflops())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_common_arguments(parser)
    parser.add_argument(
        "--buffer-mb",
        type=int,
        default=BUFFER_MB,
        help="size of the buffer that is read, in MiB (default: %(default)s): "
        "far above the last-level cache",
    )
    options = parser.parse_args()
    limits = Ceilings(options.threads, options.buffer_mb)
    counts = sorted({1, options.threads})
    measures = {
        "read GB/s": limits.read_gbs,
        "f32 FMA GFLOP/s": limits.fma_gflops,
        "vdpbf16ps GFLOP/s": limits.dot_bf16_gflops,
    }
    samples: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for name, measure in measures.items():
            for threads in counts:
                samples.setdefault((name, threads), []).append(measure(threads))
    rows = [
        [name, str(threads), report.spread(values), f"{max(values):.4g}"]
        for (name, threads), values in samples.items()
        if any(values)  # an instruction that the processor lacks gives zeros
    ]
    print(report.machine())
    print(report.table(["limit", "threads", "median (low–high)", "best"], rows))
    report.write_json(
        options.json,
        {
            "machine": report.machine(),
            "samples": [
                {"limit": name, "threads": threads, "values": values}
                for (name, threads), values in samples.items()
            ],
        },
    )


if __name__ == "__main__":
    main()
