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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from infinilm.benchmark.shapes import SHAPES, Shape

_PROMPT, _TOKENS, _REPETITIONS = 2048, 64, 3
_TILE = 1 << 22  # values that are made once, and written again and again
_DEVIATION = 0.02
_TYPES = ("BF16", "Q8_0", "Q4_0")


def _matrices(shape: Shape) -> Iterator[tuple[str, tuple[int, int]]]:
    kv = shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (shape.vocab, shape.hidden)
    if not shape.tied:
        yield "output.weight", (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield block + "attn_q.weight", (shape.hidden, shape.hidden)
        yield block + "attn_k.weight", (kv, shape.hidden)
        yield block + "attn_v.weight", (kv, shape.hidden)
        yield block + "attn_output.weight", (shape.hidden, shape.hidden)
        yield block + "ffn_gate.weight", (shape.intermediate, shape.hidden)
        yield block + "ffn_up.weight", (shape.intermediate, shape.hidden)
        yield block + "ffn_down.weight", (shape.hidden, shape.intermediate)


def _norms(shape: Shape) -> Iterator[str]:
    yield "output_norm.weight"
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight"
        yield f"blk.{layer}.ffn_norm.weight"


def _describe(writer: Any, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.longest)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")


def _write(path: Path, shape: Shape, kind: str) -> None:
    """All matrices in one type; their values repeat, which no kernel notices."""
    import gguf

    qtype = gguf.GGMLQuantizationType[kind]
    values_of_block, bytes_of_block = gguf.GGML_QUANT_SIZES[qtype]
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape)
    plan: list[tuple[str, int, bytes | None]] = []
    for name in _norms(shape):
        ones = np.ones(shape.hidden, np.float32)
        writer.add_tensor_info(name, ones.shape, ones.dtype, ones.nbytes)
        plan.append((name, ones.nbytes, ones.tobytes()))
    for name, size in _matrices(shape):
        nbytes = math.prod(size) // values_of_block * bytes_of_block
        writer.add_tensor_info(name, size, np.dtype(np.float32), nbytes, raw_dtype=qtype)
        plan.append((name, nbytes, None))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0).standard_normal((_TILE // 4096, 4096), np.float32)
    tile = gguf.quantize(random * np.float32(_DEVIATION), qtype).tobytes()
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for _, nbytes, content in plan:
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
