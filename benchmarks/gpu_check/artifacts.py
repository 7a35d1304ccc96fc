"""What is built before anything runs: a wheel, and the test and benchmark programs of the operations."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("test_cuda", "bench_cuda")


def build(directory: Path, architectures: str, jobs: int) -> None:
    """Fills ``directory``; needs nvcc, CMake, Ninja and what the wheel needs (pip fetches that)."""
    directory.mkdir(parents=True, exist_ok=True)
    _build_programs(directory.resolve(), architectures, jobs)
    environment = os.environ | {
        "CMAKE_ARGS": f"-DINFINILM_CUDA=ON -DINFINILM_CUDA_ARCHITECTURES={architectures}",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(directory), "."]
    if shutil.which("swig") and _can_import("scikit_build_core"):
        command.insert(4, "--no-build-isolation")
    for old in directory.glob("*.whl"):
        old.unlink()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def _build_programs(directory: Path, architectures: str, jobs: int) -> None:
    tree = ROOT / "build" / "gpu_check"
    off = ["-DINFINILM_PYTHON=OFF", "-DINFINILM_LUA=OFF", "-DINFINILM_JAVA=OFF"]
    cuda = ["-DINFINILM_CUDA=ON", f"-DINFINILM_CUDA_ARCHITECTURES={architectures}"]
    kind = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DINFINILM_TESTS=ON"]
    if shutil.which("ccache"):
        kind += [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("CXX", "CUDA")]
    subprocess.run(["cmake", "-S", ROOT, "-B", tree, *kind, *off, *cuda], check=True)
    subprocess.run(["cmake", "--build", tree, "-j", str(jobs), "--target", *PROGRAMS], check=True)
    for name in PROGRAMS:
        built = next(
            path for path in tree.rglob(name) if path.is_file() and os.access(path, os.X_OK)
        )
        shutil.copy2(built, directory / name)
        subprocess.run(["strip", directory / name], check=False)


def _can_import(name: str) -> bool:
    found = subprocess.run(
        [sys.executable, "-c", f"import {name}"], capture_output=True, check=False
    )
    return found.returncode == 0


def wheel(directory: Path) -> Path:
    """The one wheel that ``build`` left."""
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise FileNotFoundError(
            f"{directory}: expected one wheel, found {len(wheels)}; `build` makes it"
        )
    return wheels[0]
