#!/usr/bin/env python3
"""Build the engine for other languages, run their tests, install them, and compare one script's output with Python's.

A language whose tools are not on this machine is skipped, and the reason printed.

Usage: python tools/test_languages.py BUILD LANGUAGE…    (BUILD: a folder for CMake, kept; LANGUAGE: lua, java)
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "look_inside"
SAMPLE_MODEL = ROOT / "bindings" / "python" / "infinilm" / "data" / "sample_model"


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


def cached(build: Path, name: str) -> str:
    """Give the value of a variable in CMake's cache."""
    found = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.MULTILINE)
    return found[1] if found else ""


def example_command(
    build: Path, installed: Path, language: str
) -> tuple[list[str | Path], dict[str, str]]:
    """Give the command, without the model's directory, and the environment of a language's example."""
    if language == "lua":
        (script,) = installed.glob("**/infinilm/init.lua")
        (module,) = installed.glob("**/infinilm/engine.so")
        scripts, modules = script.parents[1], module.parents[1]
        # Without ";;", the default paths: nothing but what was installed is found.
        paths = {
            "LUA_PATH": f"{scripts}/?.lua;{scripts}/?/init.lua",
            "LUA_CPATH": f"{modules}/?.so",
        }
        return [cached(build, "LUA_EXECUTABLE"), EXAMPLES / "look_inside.lua"], paths
    (jar,) = installed.glob("**/infinilm-*.jar")
    return [cached(build, "Java_JAVA_EXECUTABLE"), "-cp", jar, EXAMPLES / "LookInside.java"], {}


def compare(build: Path, language: str) -> None:
    """Run the example in Python and, as installed, in the language; both have to print the same."""
    expected = run(sys.executable, EXAMPLES / "look_inside.py", SAMPLE_MODEL)
    with tempfile.TemporaryDirectory() as name:
        run("cmake", "--install", build, "--component", language, "--prefix", name)
        command, environment = example_command(build, Path(name), language)
        printed = run(*command, SAMPLE_MODEL, **environment)
    if printed != expected:
        sys.exit(f"{language}: the example prints something else than Python's")


def test(build: Path, language: str) -> str | None:
    """Test one language; give the reason if it is skipped."""
    option = f"INFINILM_{language.upper()}"
    printed = run(
        "cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DINFINILM_WERROR=ON", f"-D{option}=AUTO"
    )
    off = re.search(rf"{option}: off, (.*)", printed)
    if off:
        return off[1]
    run("cmake", "--build", build)
    tests = run("ctest", "--test-dir", build, "-R", f"^{language}", "-V", "--no-tests=error")
    skipped = re.search(r"skipped: (.*)", tests)
    compare(build, language)
    return f"its tests: {skipped[1]}" if skipped else None


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    build = Path(arguments[0]).resolve()
    for language in arguments[1:]:
        reason = test(build, language)
        stars = "*" * 12
        print(f"{stars} {language}: SKIPPED, {reason} {stars}" if reason else f"{language}: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
