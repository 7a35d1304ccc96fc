#!/usr/bin/env python3
"""Format the sources: clang-format for C++, ruff for Python. SWIG's .i files are left as they are.

Usage: python tools/format.py [--check]
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPP = {".cpp", ".hpp", ".inl", ".cu", ".cuh"}


def cpp_files() -> list[str]:
    folders = (ROOT / name for name in ("core", "swig", "examples", "benchmarks"))
    return sorted(str(p) for folder in folders for p in folder.rglob("*") if p.suffix in CPP)


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    clang = ["--dry-run", "-Werror"] if check else ["-i"]
    ruff = ["--check"] if check else []
    commands = [
        ["clang-format", *clang, *cpp_files()],
        ["ruff", "format", "--quiet", *ruff, str(ROOT)],
    ]
    return max(subprocess.run(command, cwd=ROOT).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
