#!/usr/bin/env python3
"""Counts the instructions of a forward pass with hook points compiled in and compiled out.

    python instructions.py             builds the core twice (some minutes), then counts
    python instructions.py --shape 150m --tokens 1

Time cannot show what a test of one pointer costs; callgrind's count can, to the instruction.
Counted is everything below LlamaForCausalLM::forward in two passes on one thread. Needs valgrind,
CMake, Ninja and a C++ compiler; valgrind has no AVX-512, so the kernels are AVX2's at best.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import models
import report
from infinilm.benchmark.shapes import SHAPES

ROOT = Path(__file__).resolve().parents[1]
COUNTED = "infinilm::LlamaForCausalLM::forward(*"
BUILDS = {"compiled in": "OFF", "compiled out": "ON"}  # INFINILM_NO_HOOKS


def run(command: list[str]) -> None:
    """Runs quietly; shows what a command said if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed: {shlex.join(command)}")


def build(folder: Path, no_hooks: str) -> Path:
    """The program, linked with a core of its own; what was built before is used again."""
    cmake = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder)]
    options = {"INFINILM_PYTHON": "OFF", "INFINILM_TESTS": "OFF", "INFINILM_NO_HOOKS": no_hooks}
    defines = [f"-D{name}={value}" for name, value in options.items()]
    run([*cmake, *defines])
    run(["cmake", "--build", str(folder)])
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    program = folder / "instructions"
    source = Path(__file__).with_name("instructions.cpp")
    library = folder / "core" / "libinfinilm_core.a"
    defined = ["-DINFINILM_NO_HOOKS"] if no_hooks == "ON" else []
    include = f"-I{ROOT / 'core' / 'include'}"
    flags = ["-std=c++20", "-O2", *defined, include, "-pthread", "-o", str(program)]
    run([*compiler, str(source), str(library), *flags])
    return program


def count(program: Path, directory: Path, tokens: int, registry: str) -> int:
    """Instructions below ``COUNTED``."""
    command = [
        "valgrind", "--tool=callgrind", f"--toggle-collect={COUNTED}",
        f"--callgrind-out-file={os.devnull}", str(program), str(directory), str(tokens), registry,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or found is None or int(found[1]) == 0:
        raise SystemExit(f"callgrind counted nothing:\n{done.stderr}")
    return int(found[1])


def main() -> None:
    """Builds, counts and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=report.positive, nargs="+", default=[1, 16])
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=models.default_folder())
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the counts to FILE")
    options = parser.parse_args()
    for tool in ("valgrind", "cmake", "ninja"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is needed, and not installed")
    directory = models.make_checkpoint(options.shape, "float32", options.folder)
    programs = {
        label: build(options.folder / f"build-hooks-{label.replace(' ', '-')}", no_hooks)
        for label, no_hooks in BUILDS.items()
    }
    rows, counts = [], []
    for tokens in options.tokens:
        base = count(programs["compiled out"], directory, tokens, "plain")
        for label, registry in [
            ("compiled out", "plain"),
            ("compiled in", "plain"),
            ("compiled in", "attached"),
        ]:
            found = count(programs[label], directory, tokens, registry)
            what = "no registry" if registry == "plain" else "an empty registry attached"
            more = f"{found - base:+,} ({100 * (found - base) / base:+.4f} %)"
            rows.append([f"{label}, {what}", str(tokens), f"{found:,}", more])
            counts.append(
                {"hooks": label, "registry": registry, "tokens": tokens, "instructions": found}
            )
    print(f"Two forward passes of {options.shape} on one thread, instructions by callgrind\n")
    print(report.table(["hook points", "tokens", "instructions", "more than compiled out"], rows))
    report.write_json(options.json, counts)


if __name__ == "__main__":
    main()
