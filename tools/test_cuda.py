#!/usr/bin/env python3
"""Test device="cuda": on a plug-in that needs no GPU, then compile the real one and ask it for a device.

Without nvcc the second half is skipped, and the reason printed. With a GPU, the tests run on it too.

Usage: python tools/test_cuda.py BUILD    (BUILD: a folder for CMake, kept)
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted((ROOT / "bindings" / "tests").glob("test_cuda*.py"))
# One architecture: that the code compiles for each is seen when a wheel is built.
ARCHITECTURE = "90a-real"
ASK = """
import infinilm
try:
    print(infinilm.cuda_devices())
except RuntimeError as error:
    print("no device:", error)
"""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command that has to succeed; print and give its output."""
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def configure(build: Path, cuda: str) -> str:
    return run(
        "cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DINFINILM_WERROR=ON",
        f"-DINFINILM_CUDA={cuda}", f"-DINFINILM_CUDA_ARCHITECTURES={ARCHITECTURE}",
    )  # fmt: skip


def pytest(plugin: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run(*command, *TESTS, INFINILM_CUDA_PLUGIN=str(plugin))


def has_compiler(build: Path) -> bool:
    """Whether CMake finds nvcc; says so if not."""
    probe = build.parent / "probe-cuda"
    script = "cmake_minimum_required(VERSION 3.26)\nproject(probe NONE)\ninclude(CheckLanguage)\n"
    script += 'check_language(CUDA)\nmessage(STATUS "compiler: ${CMAKE_CUDA_COMPILER}")\n'
    probe.mkdir(parents=True, exist_ok=True)
    (probe / "CMakeLists.txt").write_text(script)
    printed = run("cmake", "-G", "Ninja", "-S", probe, "-B", probe / "build")
    return re.search(r"compiler: /", printed) is not None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    build = Path(arguments[0]).resolve()
    configure(build, "OFF")
    run("cmake", "--build", build, "--target", "infinilm_guarded", "test_plugin")
    run(build / "core" / "tests" / "test_plugin")
    pytest(build / "core" / "tests" / "libinfinilm_guarded.so")
    if not has_compiler(build):
        print("skipped: the plug-in itself, since there is no CUDA compiler (nvcc)")
        return 0
    configure(build, "ON")
    run("cmake", "--build", build, "--target", "infinilm_cuda")
    configure(build, "OFF")  # for whoever builds here next; what was built stays
    plugin = build / "core" / "cuda" / "libinfinilm_cuda.so"
    told = run(sys.executable, "-c", ASK, INFINILM_CUDA_PLUGIN=str(plugin))
    if not told.startswith("no device:"):
        pytest(plugin)
    elif not re.search(r"NVIDIA driver|reports no CUDA device", told):
        sys.exit("the plug-in gives another reason than the missing driver or device")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
