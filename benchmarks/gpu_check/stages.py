"""The stages of a run, each a process of its own: one that crashes or hangs does not end the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import artifacts
from report import Report, Stage

_HERE = Path(__file__).resolve().parent
_TOOLS = ("memcheck", "racecheck", "initcheck")
ALL = (
    "facts",
    "table",
    "pytest",
    "operations",
    "speed",
    "peers",
    "llama_cpp",
    "sanitizers",
    "compiled",
)
_LONGEST_LOG = 400_000  # characters
_LINES = 25  # of a log, in a failed stage's note


class Stages:
    """Runs them on what was built, within a budget."""

    def __init__(self, directory: Path, report: Report, budget: float, models: list[str]) -> None:
        self._directory = directory.resolve()
        self._report = report
        self._end = time.monotonic() + budget
        self._models = models
        self._work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self._site = self._work / "site"
        self._all_logs = report.directory / "logs.txt"
        self._all_logs.write_text("")
        self._environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def run(self, chosen: list[str]) -> None:
        """In the order of ``ALL``."""
        self._install()
        for name in ALL:
            if name in chosen:
                work: Callable[[], None] = getattr(self, f"_{name}")
                work()
        shutil.rmtree(self._work, ignore_errors=True)

    def _install(self) -> None:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        wheel = str(artifacts.wheel(self._directory))
        self._stage("install", [*pip, "--no-compile", "--target", str(self._site), wheel], 120)
        paths = [str(self._site), self._environment.get("PYTHONPATH", "")]
        self._environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)

    def _facts(self) -> None:
        self._worker("facts", "facts.py", [], 120)

    def _table(self) -> None:
        program = [str(self._directory / "test_cuda")]
        library = self._cublaslt()
        if library:
            self._stage("table", program, 120, {"INFINILM_CUBLASLT": library})
        self._stage("table, own kernels only", program, 120, {"INFINILM_CUBLASLT": "off"})

    def _pytest(self) -> None:
        tests = artifacts.ROOT / "bindings" / "tests"
        files = [str(path) for path in sorted(tests.glob("test_cuda*.py"))]
        if not files:
            self._report.add(
                Stage("pytest", "skipped", 0, "there is no bindings/tests/test_cuda*.py")
            )
            return
        options = ["-q", "--maxfail=30", "--tb=short", "-p", "no:cacheprovider", "-rfE"]
        options += ["-o", "addopts="]
        self._stage("pytest", [sys.executable, "-m", "pytest", *options, *files], 200)

    def _operations(self) -> None:
        library = self._cublaslt()
        environment = {"INFINILM_CUBLASLT": library} if library else {}
        self._stage("operations", [str(self._directory / "bench_cuda")], 150, environment)
        self._collect("operations")

    def _speed(self) -> None:
        for model in self._models:
            self._worker(f"speed {model}", "speed.py", [model], 200)

    def _peers(self) -> None:
        for model in self._models:
            self._worker(f"peers {model}", "peers.py", [model, "eager"], 120)

    def _llama_cpp(self) -> None:
        if not os.environ.get("LLAMA_BENCH"):
            self._report.add(Stage("llama_cpp", "skipped", 0, "LLAMA_BENCH names no llama-bench"))
            return
        for model in self._models:
            self._worker(f"llama_cpp {model}", "llama_cpp.py", [model], 120)

    def _compiled(self) -> None:
        self._worker("compiled", "peers.py", [self._models[0], "compiled"], 150)

    def _sanitizers(self) -> None:
        program = str(self._directory / "test_cuda")
        for tool in _TOOLS:
            if not shutil.which("compute-sanitizer"):
                self._report.add(Stage(tool, "skipped", 0, "compute-sanitizer is not installed"))
                continue
            command = [
                "compute-sanitizer",
                "--tool",
                tool,
                "--error-exitcode",
                "9",
                "--print-limit",
                "8",
            ]
            self._stage(
                tool,
                [*command, program],
                90,
                {"INFINILM_CUBLASLT": "off", "INFINILM_TEST_QUICK": "1"},
            )

    def _cublaslt(self) -> str:
        """torch's, which is where this machine has it."""
        code = (
            "import nvidia, pathlib; "
            "print(*[p for d in nvidia.__path__ for p in pathlib.Path(d).rglob('libcublasLt.so.1*')][:1])"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        return found.stdout.strip()

    # One stage

    def _worker(self, name: str, script: str, options: list[str], seconds: float) -> None:
        self._stage(name, [sys.executable, str(_HERE / script), *options], seconds)
        self._collect(name)

    def _log(self, name: str) -> Path:
        return self._work / (re.sub(r"[^A-Za-z0-9]+", "_", name) + ".log")

    def _stage(
        self, name: str, command: list[str], seconds: float, more: dict[str, str] | None = None
    ) -> None:
        left = self._end - time.monotonic()
        if left < 10:
            self._report.add(Stage(name, "skipped", 0, "the budget of time is spent"))
            return
        start = time.monotonic()
        with self._log(name).open("w") as log:
            try:
                code = subprocess.run(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment | (more or {}),
                    timeout=min(seconds, left),
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            except OSError as error:
                log.write(f"{error}\n")
                code = 127
        took = time.monotonic() - start
        self._keep_log(name)
        if code == 0:
            self._report.add(Stage(name, "passed", took))
            return
        reason = "ran out of its time" if code is None else f"exit status {code}"
        self._report.add(Stage(name, "failed", took, f"{reason}\n{self._end_of_log(name)}"))

    def _keep_log(self, name: str) -> None:
        """All logs end up in one file, since little else comes back from some machines."""
        text = self._log(name).read_text(errors="replace")
        with self._all_logs.open("a") as logs:
            logs.write(f"======== {name}\n{text[-_LONGEST_LOG:]}\n")

    def _end_of_log(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        plain = [line[:240] for line in lines if not line.startswith("{")]
        return "\n".join(plain[-_LINES:])

    def _collect(self, name: str) -> None:
        """Lines of JSON in a log: facts if they say so, figures otherwise."""
        log = self._log(name)
        if not log.exists():
            return
        for line in log.read_text(errors="replace").splitlines():
            if not line.startswith("{"):
                continue
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if "facts" in found:
                self._report.facts |= found["facts"]
            else:
                self._report.figures.append(found)
        self._report.write()
