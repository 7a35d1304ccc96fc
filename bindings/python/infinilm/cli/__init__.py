"""The command line ``infinilm``: generate, chat, inspect, trace, quantize, bench."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

from .arguments import make_parser
from .common import error_text

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done. 1: failed, one line on standard error says why and what to do. 2: wrong usage (as
    ``SystemExit``). 130: Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal need not know every character
    arguments = make_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on, as with `| head`; the flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"infinilm: error: {error_text(error)}", file=sys.stderr)
        return 1
