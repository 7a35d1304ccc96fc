"""Progress bars, where somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Union

ProgressCallback = Callable[[int, int], object]
"""``callback(done, total)`` in bytes."""
Progress = Union[None, Literal[True], ProgressCallback]  # noqa: UP007 - evaluated on 3.10
"""None: silent. True: a bar on standard error if that is a terminal. Or a callback of your own."""


@contextmanager
def reporting(progress: Progress | bool, label: str) -> Iterator[ProgressCallback | None]:
    """The callback for the engine; ends the bar in any case."""
    if progress is not True:
        yield progress or None
        return
    try:
        from tqdm import tqdm
    except ImportError:  # a bar is not worth an error
        yield None
        return
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            # disable=None: only on a terminal
            bar = tqdm(
                total=total, desc=label, unit="B", unit_scale=True, leave=False, disable=None
            )
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
