#!/usr/bin/env python3
"""What a small call costs in each language, and through pybind11 in Python, measured in turn.

Needs the installed package, pybind11 (pip install pybind11), a C++ compiler, and a CMake folder in which the Lua module
and the jar were built (`tox -e lua,java` leaves one in .tox/build-cpp). Prints a table of ns: the least of each round's
repeats, then the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS = {
    "attribute": "attribute get",
    "callback": "callback",
    "view": "view of a tensor",
    "element": "element of a view",
}


def compile_peer(build: Path, folder: Path) -> None:
    """Compiles the pybind11 module against the core of `build`."""
    import pybind11

    includes = [f"-I{ROOT / 'core' / 'include'}", f"-I{pybind11.get_include()}"]
    includes.append(f"-I{sysconfig.get_path('include')}")
    output = folder / f"peer{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    subprocess.run(
        [
            *compiler, "-std=c++20", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", *includes,
            str(HERE / "peer.cpp"), str(build / "core" / "libinfinilm_core.a"), "-pthread", "-o", str(output),
        ],
        check=True,
    )  # fmt: skip


def commands(build: Path, folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command and the environment of everything that is measured."""
    lua, java = ROOT / "bindings" / "lua", list((build / "swig" / "java").glob("infinilm-*.jar"))
    lua_paths = {
        "LUA_PATH": f"{lua}/?.lua;{lua}/?/init.lua;;",
        "LUA_CPATH": f"{build}/swig/lua/?.so;;",
    }
    measure = str(HERE / "measure.py")
    return {
        "Python": ([sys.executable, measure, "infinilm"], {}),
        "Python, pybind11": ([sys.executable, measure, "peer"], {"PYTHONPATH": str(folder)}),
        "Lua": (["lua5.4", str(HERE / "measure.lua")], lua_paths),
        "Java": (["java", "-cp", str(java[0]), str(HERE / "Measure.java")] if java else [], {}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / ".tox" / "build-cpp", help="the CMake folder"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_peer(build, folder)
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for label, (command, environment) in commands(build, folder).items():
                printed = subprocess.run(
                    command,
                    env={**os.environ, **environment},
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                ).stdout
                rounds.setdefault(label, []).append(json.loads(printed))
    print("| ns | " + " | ".join(COLUMNS.values()) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for label, samples in rounds.items():
        cells = (f"{statistics.median(s[column] for s in samples):.0f}" for column in COLUMNS)
        print(f"| {label} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
