"""``infinilm chat``: a conversation."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from .common import (
    add_model_arguments,
    add_sampling_arguments,
    error_text,
    load,
    sampling_options,
)

if TYPE_CHECKING:
    from ..loading import LoadedModel

USAGE = "[options]"
HELP = "talk with a model"
DESCRIPTION = """\
Talk with a model that was trained for it (one that has a chat template).
/reset starts over, /exit (or Ctrl-D) ends; Ctrl-C stops an answer."""
EXAMPLES = """\
examples:
  infinilm chat --model ~/models/Qwen3-0.6B
  infinilm chat --model ~/models/Llama-3.2-1B-Instruct --system "Be brief." --temperature 0.6
  echo "What is the capital of France?" | infinilm chat --model ~/models/Qwen3-0.6B
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    add_model_arguments(parser)
    add_sampling_arguments(parser, max_new_tokens=None)


def run(arguments: argparse.Namespace) -> int:
    """Reads lines and answers them until there are no more."""
    loaded = load(arguments)
    if loaded.tokenizer.chat_template is None:
        where = f"--model {arguments.model}" if arguments.model else "the sample model"
        raise ValueError(
            f"{where} has no chat template, so it was not trained for conversations: use "
            "`infinilm generate`, or give an instruct or chat model with --model"
        )
    conversation = Conversation(loaded, arguments.system, sampling_options(arguments))
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - line editing and history for input()
    while True:
        line = _read_line()
        if line is None or line == "/exit":
            return 0
        if line == "/reset":
            conversation.reset()
        elif line.startswith("/"):
            print("commands: /reset starts over, /exit ends", file=sys.stderr)
        elif line:
            try:
                conversation.answer(line)
            except ValueError as error:  # no room is left, or the template refuses
                if not sys.stdin.isatty():
                    raise
                print(f"{error_text(error)} (/reset starts over)", file=sys.stderr)


class Conversation:
    """The messages so far, and the KV cache that remembers what they were computed to."""

    def __init__(self, loaded: LoadedModel, system: str | None, options: dict[str, Any]) -> None:
        """Begin with nothing but the system message."""
        self._loaded = loaded
        self._first = [{"role": "system", "content": system}] if system else []
        self._options = options
        self.reset()

    def reset(self) -> None:
        """Forget everything that was said."""
        self._messages = list(self._first)
        self._cache = self._loaded.model.new_cache()

    def answer(self, text: str) -> None:
        """Print the model's answer as it comes."""
        messages = [*self._messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        try:
            for piece in self._loaded.chat(
                messages, stream=True, cache=self._cache, **self._options
            ):
                print(piece, end="", flush=True)
                pieces.append(piece)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        print()
        self._messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]


def _read_line() -> str | None:
    """The next line; None at the end."""
    if sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            print()
            return None
    line = sys.stdin.readline()
    return line.strip() if line else None
