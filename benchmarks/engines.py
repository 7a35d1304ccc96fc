"""The engines that run.py compares, each in a process (and thread pool) of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import traceback
from abc import ABC, abstractmethod
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np


class Engine(ABC):
    """A loaded model that can be timed."""

    name: str

    @abstractmethod
    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        """Loads the checkpoint to compute in ``dtype``."""

    @abstractmethod
    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        """When each new token came, greedily (``time.perf_counter``), and the tokens."""

    @staticmethod
    @abstractmethod
    def kept_bytes(stored: int, dtype: str) -> int:
        """Bytes of a weight in memory; ``stored`` bytes in the file, arithmetic in ``dtype``."""

    @staticmethod
    @abstractmethod
    def version() -> str:
        """What is compared."""


class Infinilm(Engine):
    """What this project is."""

    name = "infinilm"

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        import infinilm

        infinilm.set_num_threads(threads)
        self._model = infinilm.LlamaForCausalLM.from_pretrained(str(directory), dtype=dtype)

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        times, tokens = [], []
        for token in self._model.stream(ids, max_new_tokens=new_tokens):
            times.append(time.perf_counter())
            tokens.append(int(token))
        return times, tokens

    @staticmethod
    def kept_bytes(stored: int, dtype: str) -> int:
        # 16-bit weights stay so and are widened on the way to the multiplication.
        return 2 if dtype == "bfloat16" else stored

    @staticmethod
    def version() -> str:
        import infinilm

        return f"infinilm {infinilm.__version__} ({infinilm.cpu_level()})"


class Transformers(Engine):
    """HuggingFace Transformers as ``generate`` runs it: SDPA attention, dynamic cache."""

    name = "transformers"

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch = torch
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype)
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
    def kept_bytes(stored: int, dtype: str) -> int:
        return 2 if dtype == "bfloat16" else 4

    @staticmethod
    def version() -> str:
        import torch
        import transformers

        return f"transformers {transformers.__version__}, torch {torch.__version__}"


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Infinilm, Transformers)}


def peak_rss_mb() -> float:
    """The most memory that this process has had in use, mapped files included."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the first new token ("first") and from there to the last one ("rest")."""
    rng = np.random.default_rng(request["seed"])
    ids = rng.integers(3, request["vocab"], request["prompt"]).tolist()
    new_tokens = request["new_tokens"]
    cpu = time.process_time()
    start = time.perf_counter()
    times, tokens = engine.stamps(ids, new_tokens)
    cpu = time.process_time() - cpu
    if len(tokens) != new_tokens:
        raise RuntimeError(f"{engine.name} gave {len(tokens)} tokens instead of {new_tokens}")
    return {
        "first": times[0] - start,
        "rest": times[-1] - times[0],
        "cpu": cpu,
        "wall": times[-1] - start,
        "tokens": tokens,
    }


def serve(pipe: Connection, name: str, directory: Path, dtype: str, threads: int) -> None:
    """The worker process: loads, then answers requests until it is told to stop."""
    try:
        start = time.perf_counter()
        engine = ENGINES[name](directory, dtype, threads)
        load = time.perf_counter() - start
        pipe.send({"version": engine.version(), "load": load})
        while (request := pipe.recv()) is not None:
            pipe.send({**answer(engine, request), "rss_mb": peak_rss_mb()})
    except Exception:
        pipe.send({"error": traceback.format_exc()})


class Worker:
    """An engine in its own process. A context manager: leaving it ends the process."""

    def __init__(self, name: str, directory: Path, dtype: str, threads: int) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, name, directory, dtype, threads), daemon=True
        )
        self._process.start()
        theirs.close()
        ready = self._receive()
        self.version: str = ready["version"]
        self.load_seconds: float = ready["load"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join(timeout=30)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Runs a prompt; see ``answer``."""
        self._pipe.send(request)
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = self._pipe.recv()
        except EOFError:
            raise SystemExit(f"the process of {self.name} died") from None
        if "error" in reply:
            raise SystemExit(f"{self.name} failed:\n{reply['error']}")
        return reply
