#!/usr/bin/env python3
"""A HuggingFace checkpoint as a CTranslate2 model in bfloat16, by CTranslate2's own converter.

    python ctranslate2_model.py CHECKPOINT OUTPUT

CTranslate2 makes its other formats out of that while loading.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(checkpoint: Path, folder: Path) -> None:
    """Writes the folder; it has its name only when it is complete."""
    from ctranslate2.converters import TransformersConverter

    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    TransformersConverter(str(checkpoint)).convert(str(part), quantization="bfloat16")
    part.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
