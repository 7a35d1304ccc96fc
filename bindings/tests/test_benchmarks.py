"""The benchmarks run and print finite numbers. What the numbers are is no matter of a test."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COMPILER = os.environ.get("CXX", "c++").split()[0]

pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not a source checkout"),
    pytest.mark.skipif(os.name != "posix", reason="POSIX only"),
]
needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"no C++ compiler {COMPILER}"
)


def run(script: str, *arguments: str, folder: Path) -> tuple[str, Any]:
    """What a script prints, and what it writes with --json."""
    file = folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def numbers(value: Any) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


@needs_compiler
def test_ceilings(tmp_path: Path) -> None:
    printed, written = run(
        "ceilings.py", "--threads", "1", "--rounds", "2", "--buffer-mb", "8", folder=tmp_path
    )
    assert "read GB/s" in printed
    assert "FMA" in printed
    for entry in written["samples"]:
        assert all(math.isfinite(value) for value in entry["values"])
        assert entry["limit"].startswith("vdpbf16ps") or min(entry["values"]) > 0


@needs_compiler
def test_speed(tmp_path: Path) -> None:
    printed, written = run(
        "run.py", "--shape", "tiny", "--peers", "none", "--dtype", "float32", "bfloat16",
        "--threads", "2", "--rounds", "2", "--prefill", "24", "--prompt", "8", "--decode", "4",
        "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "prefill tok/s" in printed
    assert "nan" not in printed
    assert len(written["runs"]) == 2
    for entry in written["runs"]:
        (result,) = entry["results"]
        assert len(result["samples"]) == 2
        for sample in result["samples"]:
            assert all(math.isfinite(number) for number in numbers(sample))
            assert sample["prefill"] > 0
            assert sample["decode"] > 0


def test_hooks(tmp_path: Path) -> None:
    printed, written = run(
        "hooks.py", "--shape", "tiny", "--threads", "1", "--rounds", "2", "--tokens", "5",
        "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "µs a callback" in printed
    callbacks = {case["hooks"]: case["callbacks"] for case in written["cases"]}
    assert callbacks["plain"] == callbacks["one that never matches"] == 0
    assert callbacks["scores and weights, NumPy view"] == 4  # two layers
    assert callbacks["every point, NumPy view"] > 30
    assert all(math.isfinite(number) for number in numbers(written))


def test_neighbour(tmp_path: Path) -> None:
    printed, written = run(
        "neighbour.py", "--shape", "tiny", "--threads", "2", "--rounds", "2", "--prefill", "9",
        "--decode", "3", "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "beside / alone" in printed
    assert len(written["rounds"]) == 2
    assert all(math.isfinite(number) for number in numbers(written))


def test_loading(tmp_path: Path) -> None:
    printed, written = run(
        "loading.py", "--shape", "tiny", "--stored", "bfloat16", "--threads", "2", "--rounds", "2",
        "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "load takes, times" in printed
    assert all(len(taken) == 2 for taken in written["seconds"].values())
    assert written["weight_bytes"] > 0
