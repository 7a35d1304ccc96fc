"""What can be said on the command line."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from . import bench, chat, generate, inspect, quantize, trace

_EXAMPLES = """\
examples:
  infinilm generate "ROMEO:"                              the small model in the package
  infinilm generate --model ~/models/Llama-3.2-1B "Once upon a time"
  infinilm chat --model ~/models/Qwen3-0.6B               a conversation
  infinilm inspect ~/models/Qwen3-0.6B                    what is in there, before loading it
  infinilm trace "ROMEO:" --points "layer#_output"        intermediate values, as a table
  infinilm quantize ~/models/Qwen3-0.6B Qwen3-0.6B-int4   rounded weights, to be loaded as they are
  infinilm bench --shape 150m                             how fast it is here

A model is a HuggingFace directory: config.json, tokenizer.json, *.safetensors.
`infinilm COMMAND --help` shows a command's options and examples.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that knows what was probably meant."""

    def __init__(self, **options: Any) -> None:
        """Set the layout that all commands share."""
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; an option that does not exist is compared with those of the command."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown, getattr(arguments, "parser", self))
        return arguments

    def _refuse(self, unknown: list[str], command: Parser) -> NoReturn:
        options = [option for action in command._actions for option in action.option_strings]
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if not name.startswith("-") and any(a.dest == "prompt" for a in command._actions):
            hint = '; quote a prompt that has several words: "Once upon a time"'
        command.error(f"there is no argument {name!r}{hint}")

    def error(self, message: str) -> NoReturn:
        """One line, and where to read more."""
        commands = [
            name
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name in action.choices
        ]
        quoted = message.split("'")[1:2]
        if commands and quoted:
            near = difflib.get_close_matches(quoted[0], commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(commands)}"
            message = f"there is no command {quoted[0]!r}; {hint}"
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """The parser of the whole command line; ``run`` of what it gives is the function to call."""
    parser = Parser(
        prog="infinilm",
        description="Run Llama-family models from HuggingFace directories, and look inside them.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (generate, chat, inspect, trace, quantize, bench):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(
            name,
            help=module.HELP,
            usage=f"infinilm {name} {module.USAGE}",
            description=module.DESCRIPTION,
            epilog=module.EXAMPLES,
        )
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=module.run, parser=command)
    return parser


class _Version(argparse.Action):
    """Prints the version and what the engine runs on."""

    def __init__(self, option_strings: Any, dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import infinilm

        level, threads = infinilm.engine.cpu_level(), infinilm.engine.num_threads()
        print(f"infinilm {infinilm.__version__} ({level}, {threads} threads)")
        parser.exit(0)
