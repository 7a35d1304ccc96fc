#!/usr/bin/env python3
"""Run pytest with the sanitizers' libraries loaded first, for a module built with INFINILM_SANITIZE.

Python itself is not built with them, so that their libraries have to be there before it starts. Its own allocator is
switched off, since it would hide overflows. Leaks are not looked for unless --leaks is the first argument: CPython
frees little when it ends, and what it keeps is told apart by tools/leaks.supp.

Usage: python tools/sanitized_pytest.py [--leaks] PYTEST-ARGUMENT…
"""

import os
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so.6")


def library(name: str) -> str:
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(path):
        raise SystemExit(f"{compiler} has no {name}")
    return path


def environment(leaks: bool) -> dict[str, str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(library(name) for name in LIBRARIES),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"detect_leaks={int(leaks)}:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        # For tests that measure what the sanitizers change.
        "INFINILM_SANITIZED": "1",
    }
    if leaks:
        suppressions = Path(__file__).with_name("leaks.supp")
        # Python has no frame pointers: stacks need the slow way, which makes every allocation dear.
        environment["LSAN_OPTIONS"] = (
            f"suppressions={suppressions}:print_suppressions=0:fast_unwind_on_malloc=0"
        )
    return environment


def main(arguments: list[str]) -> int:
    leaks = arguments[:1] == ["--leaks"]
    command = [sys.executable, "-m", "pytest", *arguments[leaks:]]
    return subprocess.run(command, env=environment(leaks)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
