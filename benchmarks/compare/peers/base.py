"""What every engine in the comparison offers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

# The number formats that are compared with one another.
CLASSES = ("f32", "bf16", "int8", "int4")


@dataclass(frozen=True)
class Kind:
    """One way of running an engine."""

    label: str
    format_class: str  # of CLASSES
    arithmetic: str  # the narrowest that its products can be in: float32, bfloat16 or int8
    bits: float = 16  # of a weight in the layers, scales included, unless the engine says more
    head_bits: float = 16


@dataclass(frozen=True)
class Conversion:
    """A script in convert/, called with the checkpoint, the target and the arguments."""

    script: str
    target: Path
    arguments: tuple[str, ...] = ()


class Peer(ABC):
    """A loaded model that can be timed. Lives in a process of its own."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    modules: ClassVar[tuple[str, ...]]  # what must be installed
    nbytes_per_pass: int | None = None  # of weights, if the loaded model knows better than the kind

    @staticmethod
    def conversion(_checkpoint: Path, _cache: Path, _kind: Kind) -> Conversion | None:
        """What it loads; None if that is the checkpoint as it is."""
        return None

    @abstractmethod
    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        """Loads the model."""

    @abstractmethod
    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        """When each new token came, greedily (``time.perf_counter``), and the tokens."""

    @staticmethod
    @abstractmethod
    def version() -> str:
        """What is compared."""


def nbytes_per_pass(checkpoint: Path, kind: Kind) -> int:
    """Bytes of weights that a pass reads."""
    config = read_config(checkpoint)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    layers = config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"])
    head = config["vocab_size"] * hidden
    return int(layers * kind.bits + head * kind.head_bits) // 8


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's config.json."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return config
