"""Builds, tests, sanitizes and times the CUDA half, in one go on a machine with a GPU.

    python benchmarks/gpu_check build DIR            # a wheel and two programs into DIR; needs nvcc, no GPU
    python3 benchmarks/gpu_check run --artifacts DIR --out REPORT
    python3 benchmarks/gpu_check run --build --out REPORT   # both on the GPU machine

``run`` goes on past failures, keeps to a budget of minutes, prints a short summary and writes
``report.md``, ``report.json`` and ``logs.txt``. What it compares with (torch, Transformers)
is used where it is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import artifacts
import stages
from report import Report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make the wheel and the test programs; needs no GPU")
    build.add_argument("directory", type=Path)
    build.add_argument("--architectures", default="90a-real", help="as CMAKE_CUDA_ARCHITECTURES")
    build.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    run = commands.add_parser("run", help="test and time on this machine's GPU")
    run.add_argument("--artifacts", type=Path, help="what `build` made")
    run.add_argument("--build", action="store_true", help="build first")
    run.add_argument("--out", type=Path, default=Path("gpu_report"))
    run.add_argument("--budget", type=float, default=540, help="seconds for everything")
    run.add_argument("--only", default="", help="stages, comma-separated: " + ", ".join(stages.ALL))
    run.add_argument("--skip", default="", help="stages to leave out")
    run.add_argument("--models", default="1b,8b", help="shapes to time")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    directory = arguments.artifacts
    if arguments.build or directory is None:
        directory = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        artifacts.build(directory, "native", os.cpu_count() or 1)
    report = Report(arguments.out)
    chosen = [name for name in arguments.only.split(",") if name] or list(stages.ALL)
    chosen = [name for name in chosen if name not in arguments.skip.split(",")]
    unknown = [name for name in chosen if name not in stages.ALL]
    if unknown:
        sys.exit(f"gpu_check: no stage {unknown[0]!r}; there are {', '.join(stages.ALL)}")
    stages.Stages(directory, report, arguments.budget, arguments.models.split(",")).run(chosen)
    report.write()
    print(report.summary())
    return 1 if report.failed else 0


def main() -> int:
    """The command line."""
    arguments = _arguments()
    if arguments.command == "build":
        artifacts.build(arguments.directory, arguments.architectures, arguments.jobs)
        return 0
    return _run(arguments)


if __name__ == "__main__":
    sys.exit(main())
