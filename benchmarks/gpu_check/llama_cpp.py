"""llama.cpp on the same shape: random weights in its own formats, by its own ``llama-bench``.

``llama_cpp.py SHAPE``; ``LLAMA_BENCH`` names the program, built with CUDA for this GPU. Needs the ``gguf`` package.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from infinilm.benchmark.random_model import tensor_shapes
from infinilm.benchmark.shapes import SHAPES, Shape

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare" / "convert"))
import gguf_file

_PROMPT, _TOKENS, _REPETITIONS = 2048, 64, 3
_TILE = 1 << 22  # values that are made once, and written again and again
_DEVIATION = 0.02
_TYPES = ("BF16", "Q8_0", "Q4_0")


def _write(path: Path, shape: Shape, kind: str) -> None:
    """All matrices in one type; their values repeat, which no kernel notices."""
    import gguf

    qtype = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    gguf_file.describe(writer, shape.config("bfloat16"))
    plan: list[tuple[int, bytes | None]] = []
    for name, size in tensor_shapes(shape).items():
        is_norm = len(size) == 1
        kept = gguf.GGMLQuantizationType.F32 if is_norm else qtype
        values_of_block, bytes_of_block = gguf.GGML_QUANT_SIZES[kept]
        nbytes = math.prod(size) // values_of_block * bytes_of_block
        writer.add_tensor_info(
            gguf_file.gguf_name(name), size, np.dtype(np.float32), nbytes, raw_dtype=kept
        )
        plan.append((nbytes, np.ones(size, np.float32).tobytes() if is_norm else None))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0).standard_normal((_TILE // 4096, 4096), np.float32)
    tile = gguf.quantize(random * np.float32(_DEVIATION), qtype).tobytes()
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for nbytes, content in plan:
        whole, rest = divmod(nbytes, len(tile))
        for piece in [content] if content is not None else [*[tile] * whole, tile[:rest]]:
            file.write(piece)
        writer.write_padding(file, nbytes)
    writer.close()


def _measure(program: str, name: str, kind: str) -> None:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        path = Path(folder) / "model.gguf"
        _write(path, SHAPES[name], kind)
        command = [program, "-m", str(path), "-ngl", "99", "-fa", "1", "-o", "json"]
        command += ["-ub", str(_PROMPT), "-p", str(_PROMPT), "-n", str(_TOKENS)]
        command += ["-r", str(_REPETITIONS)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for row in json.loads(done.stdout):
        if not row["gpu_info"]:  # it would say nothing, and take the CPU
            raise RuntimeError(f"{program} found no GPU")
        what = f"prompt of {row['n_prompt']}" if row["n_prompt"] else "decode, batch 1"
        figures = {"what": f"llama.cpp {name} {kind} {what}", "tokens_per_second": row["avg_ts"]}
        print(json.dumps(figures | {"gpu": row["gpu_info"]}), flush=True)


def main() -> int:
    """``llama_cpp.py SHAPE``"""
    for kind in _TYPES:
        _measure(os.environ["LLAMA_BENCH"], sys.argv[1], kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
