#!/usr/bin/env python3
"""Check that swig/common is neutral, by generating the wrappers of other languages from it.

A warning of SWIG is a fault (but for overloads that a language cannot tell apart), as is a class that SWIG met and did
not wrap. Generates into a folder that is deleted.

Usage: python tools/check_languages.py LANGUAGE…
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("LlamaConfig", "HookRegistry", "HookHandle", "Tensor", "LlamaForCausalLM", "Generation")


def generate(language: str, output: Path) -> str:
    """Give the text of everything that SWIG wrote for `language`."""
    command = [
        "swig", "-c++", f"-{language}", "-Werror", "-w509,516", "-DSWIGWORDSIZE64",
        f"-I{ROOT}/core/include", f"-I{ROOT}/swig/common",
        "-outdir", str(output), "-o", str(output / "wrap.cpp"),
        str(ROOT / "swig" / language / "module.i"),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return "\n".join(path.read_text() for path in output.iterdir())


def check(language: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = generate(language, Path(folder))
        except subprocess.CalledProcessError as error:
            return [f"{language}: swig ended with {error.returncode}"]
    missing = [name for name in CLASSES if f"delete_{name}" not in text]
    return [f"{language}: {name} was not wrapped" for name in missing]


def main(languages: list[str]) -> int:
    if not languages:
        print(__doc__, file=sys.stderr)
        return 2
    faults = [fault for language in languages for fault in check(language)]
    print("\n".join(faults) or f"swig/common: generates {', '.join(languages)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
