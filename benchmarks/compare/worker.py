"""An engine in a process, and thread pool, of its own."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import report
from peers import PEERS, Kind, Peer, nbytes_per_pass


class Failed(Exception):
    """An engine could not do what it was asked; the text says why."""


def answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the first new token ("first") and from there to the last one ("rest")."""
    rng = np.random.default_rng(request["seed"])
    ids = rng.integers(3, request["vocab"], request["prompt"]).tolist()
    new_tokens = request["new_tokens"]
    cpu = time.process_time()
    start = time.perf_counter()
    times, tokens = peer.stamps(ids, new_tokens)
    cpu = time.process_time() - cpu
    if len(tokens) != new_tokens:
        raise RuntimeError(f"{peer.name} gave {len(tokens)} tokens instead of {new_tokens}")
    return {
        "first": times[0] - start,
        "rest": times[-1] - times[0],
        "cpu": cpu,
        "tokens": tokens,
        "rss_mb": report.peak_rss_mb(),
    }


def serve(
    pipe: Connection, name: str, checkpoint: Path, cache: Path, kind: Kind, threads: int
) -> None:
    """The process: loads, then answers requests until it is told to stop."""
    try:
        start = time.perf_counter()
        peer = PEERS[name](checkpoint, cache, kind, threads)
        load = time.perf_counter() - start
        read = peer.nbytes_per_pass or nbytes_per_pass(checkpoint, kind)
        pipe.send({"version": peer.version(), "load": load, "nbytes": read})
        while (request := pipe.recv()) is not None:
            pipe.send(answer(peer, request))
    except BaseException:
        pipe.send({"error": traceback.format_exc()})
    os._exit(0)  # some engines do not survive the end of the interpreter


class Worker:
    """Talks to the process. A context manager: leaving it ends the process."""

    def __init__(self, name: str, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, name, checkpoint, cache, kind, threads), daemon=True
        )
        self._process.start()
        theirs.close()
        ready = self._receive()
        self.version: str = ready["version"]
        self.load_seconds: float = ready["load"]
        self.nbytes_per_pass: int = ready["nbytes"]

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
            self._process.join()
            raise Failed(f"its process died (exit status {self._process.exitcode})") from None
        if "error" in reply:
            raise Failed(reply["error"].strip().splitlines()[-1])
        return reply
