"""Tests again, under each instruction set of this machine."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import infinilm
import pytest

# A folder, for runs of one library by several Python versions: what has passed in one is not repeated in the others.
_PASSED = "INFINILM_TESTS_PASSED"


def run_again(level: str, file: str, *options: str) -> None:
    """Run the tests of ``file`` under the instruction set ``level``, in a process of their own."""
    if "INFINILM_CPU" in os.environ:
        pytest.skip("INFINILM_CPU is set: this is the run of one level")
    if level == infinilm.cpu_level():
        return  # the run that this test is part of
    passed = _place_of(level, file, *options)
    if passed is not None and passed.exists():
        pytest.skip(f"passed with this library before: {passed}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        [*command, *options, file],
        env={**os.environ, "INFINILM_CPU": level},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    if passed is not None:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()


def _place_of(*what: str) -> Path | None:
    """Where it is noted that this has passed, with this library and these tests."""
    if _PASSED not in os.environ:
        return None
    digest = hashlib.sha256(repr(what).encode())
    package, tests = Path(infinilm.__file__).parent, Path(__file__).parent
    for path in [*sorted(package.glob("*.so")), *sorted(tests.glob("*.py"))]:
        digest.update(path.read_bytes())
    return Path(os.environ[_PASSED]) / digest.hexdigest()[:32]
