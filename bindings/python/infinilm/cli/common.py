"""What several commands share."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..loading import LoadedModel

_SAMPLE_MODEL_TEMPERATURE = 0.8  # small as it is, it repeats itself when greedy
_SAMPLING = (
    ("max-new-tokens", int, "N", "how many tokens to write at most"),
    ("temperature", float, "T", "0 is greedy, 1 the model's own distribution"),
    ("top-k", int, "K", "sample among the K likeliest tokens"),
    ("top-p", float, "P", "sample among the likeliest tokens that have P of the probability"),
    ("min-p", float, "P", "sample among tokens at least P times as likely as the likeliest"),
    ("repetition-penalty", float, "X", "above 1: avoid tokens that were there before"),
    ("presence-penalty", float, "X", "above 0: avoid tokens that were generated"),
    ("frequency-penalty", float, "X", "above 0: avoid them the more, the more often"),
    ("seed", int, "N", "the same seed gives the same text"),
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and how to run it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", "-m", metavar="DIR", help="HuggingFace directory (default: the sample model)"
    )
    group.add_argument(
        "--dtype", metavar="NAME", help="float32 or bfloat16 (default: what the checkpoint says)"
    )
    add_kv_cache_argument(group)
    add_quantization_arguments(group)
    add_device_argument(group)
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def add_device_argument(parser: argparse._ArgumentGroup) -> None:
    """Where the model runs."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)"
    )


def add_kv_cache_argument(parser: argparse._ArgumentGroup) -> None:
    """What keys and values are kept in."""
    parser.add_argument(
        "--kv-cache-dtype",
        metavar="NAME",
        help="float32, bfloat16 or int8, for keys and values (default: what is computed in)",
    )


def add_quantization_arguments(parser: argparse._ArgumentGroup) -> None:
    """How the weights are kept."""
    parser.add_argument(
        "--quantization", choices=["int8", "int4"], help="round the weights while loading"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help="weights that share a scale, a multiple of 32 (default: 32 for int4, a row for int8)",
    )
    parser.add_argument(
        "--activations",
        choices=["int8"],
        help="round also what the weights are multiplied with: a faster prefill",
    )


def quantization_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords for ``from_pretrained``, those that were given."""
    names = ("quantization", "group_size", "activations")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def add_sampling_arguments(parser: argparse.ArgumentParser, max_new_tokens: int | None) -> None:
    """How to choose the next token."""
    group = parser.add_argument_group(
        "sampling",
        "By default what the model's generation_config.json says, else greedy;\n"
        f"for the sample model a temperature of {_SAMPLE_MODEL_TEMPERATURE}.",
    )
    for name, kind, metavar, text in _SAMPLING:
        default = max_new_tokens if name == "max-new-tokens" else None
        shown = f" (default: {default})" if default else ""
        group.add_argument(
            f"--{name}", type=kind, metavar=metavar, default=default, help=text + shown
        )
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="stop after this text; may be repeated"
    )


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords for ``generate``."""
    names = [name.replace("-", "_") for name, *_ in _SAMPLING]
    options = {name: getattr(arguments, name) for name in (*names, "stop")}
    if arguments.model is None and all(
        options[name] is None for name in ("temperature", "top_k", "top_p", "min_p")
    ):
        options["temperature"] = _SAMPLE_MODEL_TEMPERATURE
    return options


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the prompt comes from."""
    parser.add_argument("prompt", nargs="?", help="the text to begin with; - reads standard input")
    parser.add_argument("--prompt-file", "-f", metavar="FILE", help="read the prompt from a file")


def read_prompt(arguments: argparse.Namespace) -> str:
    """The prompt, from wherever it was given."""
    if (arguments.prompt is None) == (arguments.prompt_file is None):
        arguments.parser.error(
            'give a prompt, such as "ROMEO:", or --prompt-file FILE, and not both'
        )
    if arguments.prompt_file is not None:
        try:
            return Path(arguments.prompt_file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{arguments.prompt_file} is not UTF-8 text: {error}") from error
    return sys.stdin.read() if arguments.prompt == "-" else str(arguments.prompt)


def set_threads(arguments: argparse.Namespace) -> None:
    """Applies ``--threads``."""
    if arguments.threads is not None:
        from .. import engine

        engine.set_num_threads(arguments.threads)


def load(arguments: argparse.Namespace) -> LoadedModel:
    """The model that the arguments name, with a progress bar if somebody looks."""
    from ..loading import load

    set_threads(arguments)
    directory = model_directory(arguments.model)
    return load(
        directory,
        arguments.device,
        arguments.dtype,
        progress=True,
        kv_cache_dtype=arguments.kv_cache_dtype,
        **quantization_options(arguments),
    )


def model_directory(name: str | None) -> str:
    """The directory of ``--model``; raises with the way out where there is none."""
    from ..loading import sample_model

    if name is None:
        return sample_model()
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise NotADirectoryError(
            f"{name} is a file; give the directory that has it, with config.json"
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(
            f"no such directory: {name}; if that is a model's name on a hub, download it first: "
            f"hf download {name} --local-dir {path.name}"
        )
    raise FileNotFoundError(
        f"no such directory: {name}; give a HuggingFace directory, or none for the sample model"
    )


def error_text(error: BaseException) -> str:
    """One line that says what is wrong, and what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        text = text.strip("'\"")
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.strerror}: {error.filename}"
    if isinstance(error, MemoryError):
        text = "not enough memory for this model; --dtype bfloat16 takes half of what float32 does"
    expected = (ValueError, OSError, ImportError, TypeError, LookupError, Warning, MemoryError)
    return text if isinstance(error, expected) else f"{text} (--debug shows where)"
