#!/usr/bin/env python3
"""Check that no AVX code runs on a processor that was not asked whether it has AVX.

Two ways lead there: an object outside of core/cpu/kernels_* that was compiled with such flags, and an inline function
(std::vector's, say) that an AVX object also carries and that the linker then chooses for everybody. So the first may
hold no VEX or EVEX instruction, and the second may define no weak function but those of its instruction set's own
namespace. x86-64 only; needs binutils.

Usage: python tools/check_objects.py LIBRARY_OR_OBJECT…
"""

import re
import subprocess
import sys

KERNELS = re.compile(r"^kernels_(?!scalar)(\w+)\.")
MEMBER = re.compile(r"^(\S+):\s+file format (\S+)")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
VEX = re.compile(r"\t(v[a-z0-9]+)\s.*%(?:[yz]mm|xmm)|%[yz]mm")
WEAK = re.compile(r"^[0-9a-f]+ W (.+)$")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def vector_code(disassembly: str, kernels: bool) -> list[str]:
    """Functions with VEX or EVEX instructions in what `objdump -d -C` printed, members kernels_* left out."""
    found: list[str] = []
    member = function = ""
    for line in disassembly.splitlines():
        if match := MEMBER.match(line):
            member, function = match[1].rpartition("/")[2], ""
        elif match := FUNCTION.match(line):
            function = match[1]
        elif function and bool(KERNELS.match(member)) == kernels and VEX.search(line):
            found.append(f"{member}: {function} has vector instructions: {line.strip()}")
            function = ""  # one report for each function is enough
    return found


def weak_functions(names: str) -> list[str]:
    """Weak definitions of kernels_* members in what `nm -C --defined-only` printed."""
    found, member = [], ""
    for line in names.splitlines():
        if line.endswith(":"):
            member = line[:-1].rpartition("/")[2]
        elif (kernel := KERNELS.match(member)) and (match := WEAK.match(line)):
            # What is in the instruction set's own namespace nobody else has.
            if f"::{kernel[1]}::" in match[1]:
                continue
            found.append(f"{member}: weak function {match[1]} could be linked into baseline code")
    return found


def main(files: list[str]) -> int:
    if not files:
        print(__doc__, file=sys.stderr)
        return 2
    faults: list[str] = []
    kernels = 0
    for file in files:
        disassembly = run("objdump", "-d", "-C", "--no-show-raw-insn", file)
        if "file format elf64-x86-64" not in disassembly:
            print(f"{file}: not x86-64, nothing to check")
            return 0
        faults += vector_code(disassembly, kernels=False)
        faults += weak_functions(run("nm", "-C", "--defined-only", file))
        kernels += len(vector_code(disassembly, kernels=True))
    if not kernels:  # then the check would pass without having looked at anything
        faults.append("no kernels_* with vector code found: is this the right library?")
    print("\n".join(faults) or f"objects: vector code only in kernels_* ({kernels} functions)")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
