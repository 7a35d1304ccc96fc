"""``infinilm quantize``: write a model with rounded weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import model_directory, set_threads
from .table import format_size

USAGE = "DIR OUT [options]"
HELP = "write a model again with its weights rounded to int4 or int8"
DESCRIPTION = """\
Write a model again with its weights rounded: a HuggingFace directory that every command here loads
as it is, in the pack-quantized format of compressed-tensors. Config, tokenizer and generation
defaults go with it."""
EXAMPLES = """\
examples:
  infinilm quantize ~/models/Llama-3.2-1B Llama-3.2-1B-int4
  infinilm quantize ~/models/Llama-3.2-1B Llama-3.2-1B-int8 --quantization int8
  infinilm quantize ~/models/Llama-3.2-1B Llama-3.2-1B-int4 --group-size 128 --force
  infinilm generate --model Llama-3.2-1B-int4 "Once upon a time"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("model", metavar="DIR", help="HuggingFace directory to read")
    parser.add_argument("out", metavar="OUT", help="directory to write, made if it is not there")
    parser.add_argument(
        "--quantization", choices=["int8", "int4"], default="int4", help="default: int4"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help="weights that share a scale, a multiple of 32 (default: 32 for int4, a row for int8)",
    )
    parser.add_argument("--force", action="store_true", help="replace the model that is in OUT")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def run(arguments: argparse.Namespace) -> int:
    """Reads, rounds, writes, and says what came of it."""
    source, target = model_directory(arguments.model), Path(arguments.out).expanduser()
    _refuse_to_overwrite(target, arguments.force)
    set_threads(arguments)
    from ..model import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        source,
        quantization=arguments.quantization,
        group_size=arguments.group_size,
        progress=True,
    )
    model.save_pretrained(target, progress=True)
    size = (target / "model.safetensors").stat().st_size
    print(f"{arguments.out}: {model.quantization}, {format_size(size)}")
    return 0


def _refuse_to_overwrite(target: Path, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; give a directory to write")
    held = [*target.glob("*.safetensors"), *target.glob("config.json")]
    if held and not force:
        raise FileExistsError(
            f"{target} has a model already ({held[0].name}); --force replaces it, or give another "
            "directory"
        )
