"""What was found: written while it comes in, so that a run that is cut off leaves something too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LONGEST_NOTE = 1500  # characters of a stage's diagnostics in the summary


@dataclass
class Stage:
    """One stage's outcome: passed, failed or skipped, with the lines that say why."""

    name: str
    outcome: str
    seconds: float
    note: str = ""


@dataclass
class Report:
    """The stages and all figures of a run."""

    directory: Path
    stages: list[Stage] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def failed(self) -> bool:
        """Whether any stage did."""
        return any(stage.outcome == "failed" for stage in self.stages)

    def add(self, stage: Stage) -> None:
        """Keeps a stage, on disk too."""
        self.stages.append(stage)
        print(f"{stage.name}: {stage.outcome}, {stage.seconds:.0f} s", flush=True)
        self.write()

    def write(self) -> None:
        """report.json and report.md."""
        content = {
            "facts": self.facts,
            "stages": [vars(stage) for stage in self.stages],
            "figures": self.figures,
        }
        (self.directory / "report.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.directory / "report.md").write_text(self._markdown())

    def summary(self) -> str:
        """For a terminal that keeps little: failures first, then the figures."""
        lines = ["", "== facts"] + [f"{key}: {value}" for key, value in self.facts.items()]
        for stage in self.stages:
            if stage.outcome != "passed":
                lines += [f"== {stage.name}: {stage.outcome}", stage.note[-_LONGEST_NOTE:]]
        lines += ["== figures"] + [_line(figure) for figure in self.figures]
        return "\n".join(lines)

    def _markdown(self) -> str:
        lines = ["# GPU check", ""]
        lines += [f"- {key}: {value}" for key, value in self.facts.items()]
        lines += ["", "| stage | outcome | seconds |", "|---|---|---|"]
        lines += [f"| {s.name} | {s.outcome} | {s.seconds:.0f} |" for s in self.stages]
        lines += ["", "| what | figures |", "|---|---|"]
        for figure in self.figures:
            what, rest = _parts(figure)
            lines.append(f"| {what} | {rest} |")
        for stage in self.stages:
            if stage.note:
                lines += ["", f"## {stage.name}", "", "```", stage.note, "```"]
        return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parts(figure: dict[str, Any]) -> tuple[str, str]:
    rest = {key: value for key, value in figure.items() if key != "what"}
    return str(figure["what"]), ", ".join(f"{key} {_number(v)}" for key, v in rest.items())


def _line(figure: dict[str, Any]) -> str:
    what, rest = _parts(figure)
    return f"{what}: {rest}"
