"""Which engines can run here, in which number formats, and their converted checkpoints."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peers import PEERS, Kind

CONVERTERS = Path(__file__).parent / "convert"


@dataclass(frozen=True)
class Candidate:
    """An engine and the way it is run."""

    peer: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.peer} {self.kind.label}"


def installed(names: list[str]) -> tuple[list[str], list[str]]:
    """Engines whose modules are there, and a line for each of the others."""
    here, missing = [], []
    for name in names:
        lacking = [m for m in PEERS[name].modules if importlib.util.find_spec(m) is None]
        if lacking:
            missing.append(f"{name}: not installed ({', '.join(lacking)})")
        else:
            here.append(name)
    return here, missing


def candidates(names: list[str], classes: list[str], only: list[str]) -> list[Candidate]:
    """All kinds of these engines in these classes; with ``only`` those whose name has one of its texts."""
    every = [Candidate(name, kind) for name in names for kind in PEERS[name].kinds]
    return [
        candidate
        for candidate in every
        if candidate.kind.format_class in classes
        and (not only or any(text in str(candidate) for text in only))
    ]


def prepare(
    candidate: Candidate, checkpoint: Path, cache: Path, pythons: Sequence[str]
) -> str | None:
    """Converts the checkpoint unless that was done before. None, or what went wrong.

    The first of the interpreters that can do it does.
    """
    todo = PEERS[candidate.peer].conversion(checkpoint, cache, candidate.kind)
    if todo is None or todo.target.exists():
        return None
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for python in dict.fromkeys(pythons):
        command = [python, str(CONVERTERS / todo.script), str(checkpoint), str(todo.target)]
        done = subprocess.run([*command, *todo.arguments], capture_output=True, text=True)
        if done.returncode == 0 and todo.target.exists():
            return None
        reasons.append((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return f"{candidate}: {todo.script} failed: {'; '.join(reasons)}"
