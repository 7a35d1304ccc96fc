#!/usr/bin/env python3
"""Random Llama-shaped checkpoints that are kept, and the number formats that they are loaded in.

    python models.py 150m bfloat16 FOLDER

prints the directory that it made, or found already made. It has a tokenizer, which other engines'
converters ask for. How the weights are spread says infinilm.benchmark.random_model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import infinilm
from infinilm.benchmark.random_model import DTYPES, write_checkpoint
from infinilm.benchmark.shapes import SHAPES

# What ``from_pretrained`` is told, by the name in the tables.
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int8, int8 activations": {
        "dtype": "bfloat16", "quantization": "int8", "activations": "int8",
    },
    "int4 g32": {"dtype": "bfloat16", "quantization": "int4", "group_size": 32},
    "int4 g128": {"dtype": "bfloat16", "quantization": "int4", "group_size": 128},
    "int4 g32, int8 activations": {
        "dtype": "bfloat16", "quantization": "int4", "group_size": 32, "activations": "int8",
    },
    "int4 g128, int8 activations": {
        "dtype": "bfloat16", "quantization": "int4", "group_size": 128, "activations": "int8",
    },
}  # fmt: skip
KV_DTYPES = ("float32", "bfloat16", "int8")


def load(
    directory: Path, number_format: str, kv_cache_dtype: str | None = None
) -> infinilm.LlamaForCausalLM:
    """A model in one of ``FORMATS``; its KV cache in what is computed in, or as told."""
    options = FORMATS[number_format]
    return infinilm.LlamaForCausalLM.from_pretrained(
        directory, kv_cache_dtype=kv_cache_dtype, **options
    )


def make_checkpoint(name: str, dtype: str, folder: Path) -> Path:
    """The directory of the model in ``folder``; made unless it is there."""
    directory = folder / f"{name}-{dtype}"
    if not (directory / "config.json").exists():
        write_tokenizer(directory, SHAPES[name].vocab)
        write_checkpoint(directory, SHAPES[name], dtype)
    return directory


def make_checkpoint_for(name: str, number_format: str, folder: Path) -> Path:
    """One for a format of ``FORMATS``: float32 for itself, for all others bfloat16."""
    return make_checkpoint(name, "float32" if number_format == "float32" else "bfloat16", folder)


def write_tokenizer(directory: Path, vocab: int) -> None:
    """One word for each id: "t0 t1 t2"."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {f"t{i}": i for i in range(vocab)},
            "unk_token": "t0",
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "t1",
        "eos_token": "t2",
        "unk_token": "t0",
        "model_max_length": 8192,
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (directory / name).write_text(json.dumps(content) + "\n", encoding="utf-8")


def default_folder() -> Path:
    """Where checkpoints are kept unless the user names another place."""
    return Path(tempfile.gettempdir()) / "infinilm-benchmarks"


def main() -> None:
    """Makes one checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("dtype", choices=DTYPES)
    parser.add_argument("folder", type=Path, nargs="?", default=default_folder())
    options = parser.parse_args()
    print(make_checkpoint(options.shape, options.dtype, options.folder))


if __name__ == "__main__":
    main()
