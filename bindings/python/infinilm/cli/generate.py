"""``infinilm generate``: continue a prompt."""

from __future__ import annotations

import argparse

from .common import (
    add_model_arguments,
    add_prompt_arguments,
    add_sampling_arguments,
    load,
    read_prompt,
    sampling_options,
)

USAGE = "PROMPT [options]"
HELP = "continue a text"
DESCRIPTION = "Continue a text, and show it as it is written."
EXAMPLES = """\
examples:
  infinilm generate "ROMEO:"
  infinilm generate "ROMEO:" --temperature 0.8 --seed 7 --max-new-tokens 300
  infinilm generate --model ~/models/Llama-3.2-1B "The capital of France is" --stop "."
  infinilm generate --prompt-file letter.txt --continuation-only > reply.txt
  echo -n "Once upon" | infinilm generate -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add_prompt_arguments(parser)
    parser.add_argument(
        "--continuation-only", action="store_true", help="do not repeat the prompt in the output"
    )
    add_model_arguments(parser)
    add_sampling_arguments(parser, max_new_tokens=200)


def run(arguments: argparse.Namespace) -> int:
    """Writes the prompt and its continuation to standard output."""
    prompt = read_prompt(arguments)
    pieces = load(arguments).stream(prompt, **sampling_options(arguments))
    last = prompt
    if not arguments.continuation_only:
        print(prompt, end="", flush=True)
    for last in pieces:
        print(last, end="", flush=True)
    if not last.endswith("\n"):
        print()
    return 0
