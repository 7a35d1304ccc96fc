"""CTranslate2."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .base import Conversion, Kind, Peer


class CTranslate2(Peer):
    """CTranslate2's Generator, greedy, one prompt."""

    name = "CTranslate2"
    modules = ("ctranslate2",)
    kinds = (
        Kind("float32", "f32", "float32", 32, 32),
        Kind("bfloat16", "bf16", "bfloat16"),
        Kind("int8_float32", "int8", "int8", 8, 8),
        Kind("int8_bfloat16", "int8", "int8", 8, 8),
    )

    @staticmethod
    def conversion(checkpoint: Path, cache: Path, _kind: Kind) -> Conversion:
        return Conversion("ctranslate2_model.py", cache / f"{checkpoint.name}-ctranslate2")

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        import ctranslate2

        folder = self.conversion(checkpoint, cache, kind).target
        self._words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=kind.label, intra_threads=threads
        )

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        times, tokens = [], []

        def step(result: Any) -> bool:
            times.append(time.perf_counter())
            tokens.append(int(result.token_id))
            return False

        self._generator.generate_batch(
            [[self._words[i] for i in ids]],
            max_length=new_tokens,
            min_length=new_tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
            callback=step,
        )
        return times, tokens

    @staticmethod
    def version() -> str:
        import ctranslate2

        return f"CTranslate2 {ctranslate2.__version__}"
