"""OpenVINO GenAI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .base import Conversion, Kind, Peer


class OpenVino(Peer):
    """LLMPipeline with the SDPA backend; arithmetic and cache are the plug-in's choice, or float32 where it says so."""

    name = "OpenVINO GenAI"
    modules = ("openvino", "openvino_genai")
    kinds = (
        Kind("bf16, f32 arithmetic", "f32", "float32"),
        Kind("bf16", "bf16", "bfloat16"),
        Kind("int8", "int8", "int8", 8, 8),
        Kind("int4-g32", "int4", "int8", 4.5, 8),
        Kind("int4-g128", "int4", "int8", 4.125, 8),
    )

    @staticmethod
    def conversion(checkpoint: Path, cache: Path, kind: Kind) -> Conversion:
        stored = kind.label.partition(",")[0]
        folder = cache / f"{checkpoint.name}-openvino-{stored}"
        return Conversion("openvino_ir.py", folder, (stored,))

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        import openvino
        import openvino_genai

        folder = self.conversion(checkpoint, cache, kind).target
        options: dict[str, Any] = {
            "ATTENTION_BACKEND": "SDPA",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if kind.arithmetic == "float32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        self._genai: Any = openvino_genai
        self._tensor = openvino.Tensor
        self._pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", **options)

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        times: list[float] = []
        tokens: list[int] = []
        genai = self._genai

        class Streamer(genai.StreamerBase):  # type: ignore[misc, name-defined]
            """Hears of each token."""

            def write(self, token: Any) -> Any:
                for one in token if isinstance(token, list) else [token]:
                    times.append(time.perf_counter())
                    tokens.append(int(one))
                return genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        prompt = np.array([ids], np.int64)
        inputs = genai.TokenizedInputs(self._tensor(prompt), self._tensor(np.ones_like(prompt)))
        config = genai.GenerationConfig()
        config.eos_token_id = 0  # none would be refused; it is ignored
        config.stop_token_ids = {0}
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        self._pipeline.generate(inputs, config, Streamer())
        return times, tokens

    @staticmethod
    def version() -> str:
        import openvino
        import openvino_genai

        return f"OpenVINO {openvino.__version__}, GenAI {openvino_genai.__version__}"
