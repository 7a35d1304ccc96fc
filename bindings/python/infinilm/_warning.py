"""The engine's channel for warnings."""

from __future__ import annotations

import sys
import warnings


def warn(text: str) -> None:
    """Warn at the line that called the package, not at one inside of it."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "infinilm":
        frame = frame.f_back
        level += 1
    warnings.warn(text, UserWarning, stacklevel=level)
