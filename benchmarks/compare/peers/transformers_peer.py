"""HuggingFace Transformers on torch."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from .base import Kind, Peer


class Transformers(Peer):
    """Transformers as ``generate`` runs it: SDPA attention, dynamic cache."""

    name = "transformers"
    modules = ("torch", "transformers")
    kinds = (
        Kind("float32", "f32", "float32", 32, 32),
        Kind("bfloat16", "bf16", "bfloat16"),
    )

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch

        transformers: Any = importlib.import_module("transformers")  # untyped functions
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch: Any = torch
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=getattr(torch, kind.label)
        ).eval()

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        times: list[float] = []

        class Streamer:
            """Hears of the prompt first, then of each token."""

            def put(self, _tokens: Any) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        prompt = self._torch.tensor([ids])
        output = self._model.generate(
            prompt,
            attention_mask=self._torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            do_sample=False,
            streamer=Streamer(),
        )
        return times[1:], output[0, len(ids) :].tolist()

    @staticmethod
    def version() -> str:
        import torch
        import transformers

        return f"transformers {transformers.__version__}, torch {torch.__version__}"
