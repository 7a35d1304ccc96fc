"""Callables that C++ calls: kept by a Python object, held weakly by C++, so that gc sees every cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Slot:
    """A callable in the table of the object that owns it; ``drop`` is called when C++ forgets it."""

    __slots__ = ("__weakref__", "callback", "table")

    def __init__(self, callback: Callable[..., Any], table: set[Slot]) -> None:
        self.callback = callback
        self.table = table
        table.add(self)

    def drop(self) -> None:
        """Leave the table."""
        self.table.discard(self)


def check_callable(callback: object, name: str) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(callback):
        raise TypeError(f"{name} must be callable, not {type(callback).__name__}")
