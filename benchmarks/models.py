#!/usr/bin/env python3
"""Random Llama-shaped checkpoints that are kept, with a tokenizer that other engines' converters ask for.

    python models.py 150m bfloat16 FOLDER

prints the directory that it made, or found already made. How the weights are spread says
infinilm.benchmark.random_model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from infinilm.benchmark.random_model import DTYPES, write_checkpoint
from infinilm.benchmark.shapes import SHAPES


def make_checkpoint(name: str, dtype: str, folder: Path) -> Path:
    """The directory of the model in ``folder``; made unless it is there."""
    directory = folder / f"{name}-{dtype}"
    if not (directory / "config.json").exists():
        write_tokenizer(directory, SHAPES[name].vocab)
        write_checkpoint(directory, SHAPES[name], dtype)
    return directory


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
