"""onnxruntime-genai."""

from __future__ import annotations

import json
import time
from pathlib import Path

from .base import Conversion, Kind, Peer


class OnnxRuntime(Peer):
    """onnxruntime-genai's Generator."""

    name = "onnxruntime-genai"
    modules = ("onnxruntime_genai",)
    kinds = (
        Kind("fp32", "f32", "float32", 32, 32),
        Kind("int4", "int4", "int8", 5, 5),  # groups of 32 with float32 scales
    )

    @staticmethod
    def conversion(checkpoint: Path, cache: Path, kind: Kind) -> Conversion:
        folder = cache / f"{checkpoint.name}-onnxruntime-{kind.label}"
        return Conversion("onnxruntime_model.py", folder, (kind.label,))

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        import onnxruntime_genai

        folder = self.conversion(checkpoint, cache, kind).target
        config = onnxruntime_genai.Config(str(folder))
        options = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._genai = onnxruntime_genai
        self._model = onnxruntime_genai.Model(config)

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        params = self._genai.GeneratorParams(self._model)
        length = len(ids) + new_tokens
        params.set_search_options(do_sample=False, max_length=length, min_length=length)
        generator = self._genai.Generator(self._model, params)
        times, tokens = [], []
        generator.append_tokens(ids)
        for _ in range(new_tokens):
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            times.append(time.perf_counter())
        return times, tokens

    @staticmethod
    def version() -> str:
        import onnxruntime
        import onnxruntime_genai

        return f"onnxruntime-genai {onnxruntime_genai.__version__} ({onnxruntime.__version__})"
