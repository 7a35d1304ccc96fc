"""What this project is."""

from __future__ import annotations

import time
from pathlib import Path

import models

from .base import Kind, Peer


class Infinilm(Peer):
    """infinilm through ``stream``, which is what a user calls."""

    name = "infinilm"
    modules = ("infinilm",)
    # Weights stay as they are stored, also where they are widened for the product.
    kinds = (
        Kind("float32", "f32", "float32"),
        Kind("bfloat16", "bf16", "bfloat16"),
        Kind("int8", "int8", "bfloat16", 8, 8),
        Kind("int8, int8 activations", "int8", "int8", 8, 8),
        Kind("int4 g32", "int4", "bfloat16", 4.5, 8),
        Kind("int4 g128", "int4", "bfloat16", 4.125, 8),
        Kind("int4 g32, int8 activations", "int4", "int8", 4.5, 8),
        Kind("int4 g128, int8 activations", "int4", "int8", 4.125, 8),
    )

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        import infinilm

        infinilm.set_num_threads(threads)
        self._model = models.load(checkpoint, kind.label)
        self.nbytes_per_pass = self._model._engine.nbytes_per_pass()

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        times, tokens = [], []
        for token in self._model.stream(ids, max_new_tokens=new_tokens):
            times.append(time.perf_counter())
            tokens.append(int(token))
        return times, tokens

    @staticmethod
    def version() -> str:
        import infinilm

        return f"infinilm {infinilm.__version__} ({infinilm.cpu_level()})"
