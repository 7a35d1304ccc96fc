#!/usr/bin/env python3
"""Check that no file of the project names a place that only one machine has, or a package registry.

Such a name works for whoever wrote it and for nobody else. Looks at what git would commit.

Usage: python tools/check_paths.py [root of the project]
"""

import re
import subprocess
import sys
from pathlib import Path

# Written in pieces, so that this file passes its own check.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:work|root|opt|home/\w+|Users/\w+)" + r"/[\w.]",
            r"/tmp/(?:dev|build|brief)" + r"\b",
            r"pypi" + r"\.org",
            r"python" + r"hosted",
            r"pytorch\.org" + r"/whl",
            r"(?:conda|anaconda)" + r"\.(?:io|org)",
            r"registry\." + r"\w+\.(?:org|com|io)\b",
            r"--(?:extra-)?" + r"index-url",
        ]
    )
)


def project_files(root: Path) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [root / name for name in sorted(listing.stdout.split("\0")) if name]


def check(files: list[Path], root: Path) -> list[str]:
    """Give all faults as "file:line: text"."""
    faults = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or deleted and not yet committed
            continue
        for number, line in enumerate(lines, 1):
            found = FORBIDDEN.search(line)
            if found:
                faults.append(f'{path.relative_to(root)}:{number}: names "{found[0]}"')
    return faults


def main(arguments: list[str]) -> int:
    root = Path(arguments[0] if arguments else Path(__file__).parents[1]).resolve()
    faults = check(project_files(root), root)
    print("\n".join(faults) or "paths: none of one machine only")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
