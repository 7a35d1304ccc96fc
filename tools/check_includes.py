#!/usr/bin/env python3
"""Check who may depend on whom in the C++ core, and that it knows nothing of the languages on top.

The rule (docs/architecture.md): generate -> model -> ops <- {cpu, cuda}; core/include includes only itself; core and
swig/common name no target language; compiler flags for one instruction set, and intrinsics, stay in core/cpu.

Usage: python tools/check_includes.py [root of the project]
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

BELOW = {
    "base": set(),
    "io": {"base"},
    "config": {"base", "io"},
    "hooks": {"base"},
    "quant": {"base", "config", "io"},
    "ops": {"base", "quant"},
    "cpu": {"base", "ops", "quant"},
    "cuda": {"base", "ops", "quant"},
    "model": {"base", "config", "hooks", "io", "ops", "quant"},
    "generate": {"base", "config", "hooks", "io", "model", "ops"},
}
ANYTHING = {"tests", "fuzz"}  # these look into every folder
# The one file that makes the Ops of a device, and so knows the devices.
FACTORY = Path("ops/devices.cpp")
DEVICES = {"cpu", "cuda"}
CPP = {".cpp", ".hpp", ".inl", ".cu", ".cuh"}

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
LANGUAGE = re.compile(
    r"\b(?:Py[A-Z_]\w*|SWIG_?(?:PYTHON|JAVA|LUA|CSHARP|RUBY)\w*|JNIEnv|lua_\w+|j(?:object|throwable)"
    r"|(?i:python|pybind\w*|swig|numpy))\b"
)
TARGET_FLAG = re.compile(r"(?<![\w-])-m(?:arch|tune|cpu|avx|fma|f16c|sse|bmi|prefer|amx)[\w=.-]*")
TARGET_CODE = re.compile(r"\b(?:\w*intrin\.h|arm_neon\.h|GCC\s+target|target\s*\(\s*\")")


def without_comments(text: str) -> str:
    """Give the text with comments blanked out, strings and line numbers kept."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else "\n" * found.count("\n")

    return COMMENT.sub(blank, text)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def check_include(file: Path, quote: str, target: str, core: Path) -> str | None:
    """Say what is wrong with one include of `file`, a path below core/ ("include/…" for the public headers)."""
    folder = file.parts[0]
    if quote == "<":
        own = target.startswith("infinilm/") or target.partition("/")[0] in BELOW
        return f'write "{target}" with quotes: it is our own' if own else None
    head = target.partition("/")[0]
    if head == "infinilm":
        exists = (core / "include" / target).is_file()
        return None if exists else f"there is no core/include/{target}"
    if folder == "include":
        return f'a public header includes "{target}"; only "infinilm/…" and the standard library'
    if not (core / target).is_file():
        return f"there is no core/{target}; includes are written from core/ or core/include/"
    if head == folder or ANYTHING & set(file.parts) or head in BELOW.get(folder, set()):
        return None
    if file == FACTORY and head in DEVICES:
        return None
    allowed = ", ".join(sorted(BELOW.get(folder, set()))) or "none"
    return f'{folder}/ includes "{target}"; it may use of the other folders: {allowed}'


def check_cpp(path: Path, core: Path) -> Iterator[tuple[int, str]]:
    file = path.relative_to(core)
    folder = file.parts[0]
    if folder not in BELOW and folder not in ANYTHING | {"include"}:
        yield 1, f"folder {folder}/ is unknown; give it a place in tools/check_includes.py"
    text = without_comments(path.read_text(encoding="utf-8"))
    for match in INCLUDE.finditer(text):
        fault = check_include(file, match[1], match[2], core)
        if fault:
            yield line_of(text, match.start(2)), fault
    for match in LANGUAGE.finditer(text):
        yield line_of(text, match.start()), f'"{match[0]}": the core knows no target language'
    if folder != "cpu":
        for match in TARGET_CODE.finditer(text):
            yield line_of(text, match.start()), f'"{match[0]}" belongs into core/cpu'


def check_neutral(path: Path) -> Iterator[tuple[int, str]]:
    text = without_comments(path.read_text(encoding="utf-8"))
    for match in LANGUAGE.finditer(text):
        yield line_of(text, match.start()), f'"{match[0]}": swig/common knows no target language'


def check_flags(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    for match in TARGET_FLAG.finditer(text):
        yield line_of(text, match.start()), f'"{match[0]}": only core/cpu has such flags'


def build_files(root: Path) -> Iterator[Path]:
    yield from (root / name for name in ("CMakeLists.txt", "CMakePresets.json", "pyproject.toml"))
    for folder in ("cmake", "core", "swig", "examples"):
        for path in (root / folder).rglob("*"):
            if path.name == "CMakeLists.txt" or path.suffix == ".cmake":
                yield path


def check(root: Path) -> list[str]:
    """Give all faults as "file:line: text"."""
    core = root / "core"
    faults = [
        (path, fault)
        for path in core.rglob("*")
        if path.suffix in CPP
        for fault in check_cpp(path, core)
    ]
    for path in (root / "swig" / "common").rglob("*"):
        if path.suffix in CPP | {".i"}:
            faults += [(path, fault) for fault in check_neutral(path)]
    for path in build_files(root):
        if path.is_file() and (core / "cpu") not in path.parents:
            faults += [(path, fault) for fault in check_flags(path)]
    return sorted(f"{path.relative_to(root)}:{line}: {text}" for path, (line, text) in faults)


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    if not (root / "core").is_dir():
        print(f"{root} has no folder core", file=sys.stderr)
        return 2
    faults = check(root)
    print("\n".join(faults) or "includes: in order")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
