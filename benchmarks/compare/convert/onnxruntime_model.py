#!/usr/bin/env python3
"""A HuggingFace checkpoint for onnxruntime-genai, by its own model builder.

    python onnxruntime_model.py CHECKPOINT OUTPUT fp32|int4

int4: the builder's defaults for the CPU (blocks of 32, accuracy level 4, which is int8 arithmetic).
Needs `pip install onnxruntime-genai onnx onnx-ir torch transformers`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def main(checkpoint: Path, folder: Path, kind: str) -> None:
    """Writes the folder; it has its name only when it is complete."""
    part, scratch = folder.with_suffix(".part"), folder.with_suffix(".scratch")
    shutil.rmtree(part, ignore_errors=True)
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
    places = ["-i", str(checkpoint), "-o", str(part), "-c", str(scratch)]
    subprocess.run([*builder, *places, "-p", kind], check=True)
    shutil.rmtree(scratch, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
