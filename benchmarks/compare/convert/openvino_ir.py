#!/usr/bin/env python3
"""A HuggingFace checkpoint as OpenVINO IR, by optimum-intel and NNCF, which is how users get one.

    python openvino_ir.py CHECKPOINT OUTPUT bf16|int8|int4-g32|int4-g128

Needs `pip install optimum-intel nncf` (which asks for its own version of transformers: another
virtual environment may run this file). int8: per channel, symmetric. int4: symmetric, all layers,
embedding and head in int8.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any


def quantisation(kind: str) -> Any:
    """What optimum-intel calls it."""
    from optimum.intel import OVWeightQuantizationConfig

    if kind == "bf16":
        return None
    if kind == "int8":
        return OVWeightQuantizationConfig(bits=8, sym=True)
    return OVWeightQuantizationConfig(
        bits=4, sym=True, group_size=int(kind.removeprefix("int4-g")), ratio=1.0
    )


def main(checkpoint: Path, folder: Path, kind: str) -> None:
    """Writes the folder; it has its name only when it is complete."""
    import torch
    from optimum.intel import OVModelForCausalLM

    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model = OVModelForCausalLM.from_pretrained(
        checkpoint,
        export=True,
        compile=False,
        load_in_8bit=False,
        quantization_config=quantisation(kind),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(part)
    part.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
