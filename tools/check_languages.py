#!/usr/bin/env python3
"""Check that a language supplies what swig/common/README.md asks for, and that SWIG wraps everything with it.

- Every type of the catalogue's table, in every form and direction that the table gives it, has a typemap of the
  language's own: SWIG is asked which one it takes for functions that are made up here.
- Every macro of the catalogue is there.
- The wrapper is generated without a warning (but for overloads that a language cannot tell apart), and no type of C++'s
  library is opaque in it: without a typemap SWIG makes a bare pointer, silently.

Usage: python tools/check_languages.py LANGUAGE…
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLASSES = (
    "LlamaConfig",
    "HookRegistry",
    "HookHandle",
    "Capture",
    "Tensor",
    "LlamaForCausalLM",
    "Generation",
)
OPTIONS = {"python": ["-keyword", "-doxygen"], "java": ["-package", "infinilm"]}
# Objects of the core: SWIG's own proxies are what they should be.
PROXIES = ("infinilm::Device", "infinilm::Tensor")

ROW = re.compile(r"^\| (?P<names>`.*?) \| (?P<into>.*?) \| (?P<out>.*?) ?\|$", re.MULTILINE)
MACRO = re.compile(r"`(INFINILM_\w+)`")
USED = re.compile(
    r"Typemap for .*?\b(?P<probe>(?:in|out)_\d+)\b.*\((?P<kind>in|out)\) : (?P<found>.*)"
)
OPAQUE = re.compile(
    r"^(?!#define|static swig_(?:type|cast)_info).*\bSWIGTYPE_p_std__(?!shared_ptr)\w+",
    re.MULTILINE,
)


def swig(language: str, interface: Path, output: Path, root: Path, *options: str) -> str:
    """Run SWIG and give what it printed beside warnings."""
    command = [
        "swig", "-c++", f"-{language}", *OPTIONS.get(language, []), "-DSWIGWORDSIZE64", *options,
        f"-I{root}/core/include", f"-I{root}/swig/common", f"-I{root}/swig/{language}",
        "-outdir", str(output), "-o", str(output / "wrap.cpp"), str(interface),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"swig ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def catalogue(root: Path) -> Iterator[tuple[str, bool, bool]]:
    """Give every C++ type of the table, whether it goes in and whether it comes out."""
    text = (root / "swig/common/README.md").read_text()
    table = text.split("### Typemaps", 1)[1].split("\n###", 1)[0]
    for row in ROW.finditer(table):
        for name in re.findall(r"`([^`]*)`", row["names"]):
            yield name, bool(row["into"].strip()), bool(row["out"].strip())


def probes(root: Path) -> tuple[str, dict[str, str]]:
    """Give an interface that uses every type in every form, and what each of its functions is about."""
    lines, about = [], {}

    def add(kind: str, form: str) -> None:
        name = f"{kind}_{len(about)}"
        about[name] = form
        lines.append(f"void use({form} {name}) {{}}" if kind == "in" else f"{form} {name}();")

    for name, into, out in catalogue(root):
        reference = "&" in name or name.endswith("_view")  # travels in this form only
        for form in (name,) if reference else (name, f"const {name}&"):
            if into and name not in PROXIES and not name.endswith(("directory", "path")):
                add("in", form)
            if out and name not in PROXIES and not reference:
                add("out", form)
    macros = MACRO.findall((root / "swig/common/README.md").read_text())
    needed = "".join(f"#ifndef {m}\n#error the macro {m} is missing\n#endif\n" for m in macros)
    functions = "\n".join(lines)
    return f'%module probe\n%include "module.i"\n{needed}%inline %{{\n{functions}\n%}}\n', about


def check_catalogue(language: str, folder: Path, root: Path) -> Iterator[str]:
    """Say which entries of the catalogue the language lacks."""
    interface, about = probes(root)
    path = folder / "probe.i"
    path.write_text(interface)
    printed = swig(language, path, folder, root, "-debug-tmused", "-w472,509,516")
    found = dict.fromkeys(about, "no typemap")
    for line in USED.finditer(printed):
        if line["kind"] == line["probe"].split("_")[0]:
            found[line["probe"]] = line["found"]
    for probe, typemap in found.items():
        if "SWIGTYPE" in typemap or typemap == "no typemap":
            yield f"{language}: {about[probe]} has no typemap({probe.split('_')[0]}), but {typemap}"


def check_wrapper(language: str, folder: Path, root: Path) -> Iterator[str]:
    """Say what SWIG warns of, did not wrap, or knows as a bare pointer only."""
    swig(language, root / "swig" / language / "module.i", folder, root, "-Werror", "-w509,516")
    text = "\n".join(path.read_text() for path in folder.iterdir() if path.suffix != ".i")
    for name in CLASSES:
        if f"delete_{name}" not in text and f"class {name} " not in text:
            yield f"{language}: {name} was not wrapped"
    wrapper = (folder / "wrap.cpp").read_text()
    for line in sorted({match.group().strip() for match in OPAQUE.finditer(wrapper)}):
        yield f"{language}: an opaque type: {line}"
    for path in folder.glob("SWIGTYPE_p_*"):
        yield f"{language}: an opaque type: {path.name}"


def check(language: str, root: Path = ROOT) -> list[str]:
    """Give all faults of a language."""
    faults = []
    for job in (check_catalogue, check_wrapper):
        with tempfile.TemporaryDirectory() as folder:
            try:
                faults += job(language, Path(folder), root)
            except RuntimeError as error:
                faults.append(f"{language}: {error}")
    return faults


def main(languages: list[str]) -> int:
    if not languages:
        print(__doc__, file=sys.stderr)
        return 2
    faults = [fault for language in languages for fault in check(language)]
    print("\n".join(faults) or f"swig/common: in order for {', '.join(languages)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
