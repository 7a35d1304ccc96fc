"""llama.cpp through the C API that llama-cpp-python carries."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Conversion, Kind, Peer, read_config

_LONGEST = 2048
_WITHOUT = ", no repacking"
_QUANTISED = (("Q8_0", "int8"), ("Q4_0", "int4"), ("Q4_K_M", "int4"))


class LlamaCpp(Peer):
    """``llama_decode`` in batches of 512, all else the library's defaults."""

    name = "llama.cpp"
    modules = ("llama_cpp", "gguf")
    kinds = (
        Kind("F32", "f32", "float32"),
        Kind("BF16", "bf16", "bfloat16"),
        *(
            Kind(name + suffix, format_class, "int8")
            for name, format_class in _QUANTISED
            for suffix in ("", _WITHOUT)
        ),
    )

    @staticmethod
    def conversion(checkpoint: Path, cache: Path, kind: Kind) -> Conversion:
        stored = kind.label.removesuffix(_WITHOUT)
        file = cache / f"{checkpoint.name}-{stored}.gguf"
        return Conversion("gguf_file.py", file, (stored,))

    def __init__(self, checkpoint: Path, cache: Path, kind: Kind, threads: int) -> None:
        file = self.conversion(checkpoint, cache, kind).target
        vocab = int(read_config(checkpoint)["vocab_size"])
        self._context = Context(file, vocab, threads, not kind.label.endswith(_WITHOUT))
        self.nbytes_per_pass = weights_read(file)

    def stamps(self, ids: list[int], new_tokens: int) -> tuple[list[float], list[int]]:
        self._context.clear()
        times, tokens, batch = [], [], ids
        for _ in range(new_tokens):
            tokens.append(int(self._context.decode(batch).argmax()))
            times.append(time.perf_counter())
            batch = tokens[-1:]
        return times, tokens

    def all_logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Of every token of a prompt: [tokens, V]."""
        return self._context.prefill(ids)

    @staticmethod
    def version() -> str:
        import llama_cpp

        info = llama_cpp.llama_print_system_info().decode()
        on = [
            part.split("=")[0].strip() for part in info.split("|") if part.strip().endswith("= 1")
        ]
        return f"llama.cpp of llama-cpp-python {llama_cpp.__version__} ({' '.join(on)})"


def weights_read(file: Path) -> int:
    """Bytes of all tensors but an embedding that is not the head too: the kinds mix formats."""
    import gguf

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(file).tensors}
    embedding = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    return sum(sizes.values()) - embedding


class Context:
    """A loaded GGUF file and its cache."""

    def __init__(self, file: Path, vocab: int, threads: int, repack: bool = True) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        self._vocab = vocab
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        model.use_extra_bufts = repack
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), model)
        if not self._model:
            raise OSError(f"llama.cpp cannot load {file}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = _LONGEST
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            raise OSError(f"llama.cpp cannot run {file}")

    def clear(self) -> None:
        """Forgets the sequence."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)

    def prefill(self, ids: list[int]) -> NDArray[np.float32]:
        """The logits of every token of a new sequence of at most 512."""
        self.clear()
        batch = self._api.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            if self._api.llama_decode(self._context, batch):
                raise RuntimeError("llama_decode failed")
            logits = self._api.llama_get_logits(self._context)
            return np.array(np.ctypeslib.as_array(logits, (len(ids), self._vocab)))
        finally:
            self._api.llama_batch_free(batch)

    def decode(self, ids: list[int]) -> NDArray[np.float32]:
        """Appends ``ids`` to the sequence and gives the logits of the last one."""
        for begin in range(0, len(ids), 512):
            part = ids[begin : begin + 512]
            tokens = (ctypes.c_int32 * len(part))(*part)
            batch = self._api.llama_batch_get_one(tokens, len(part))
            if self._api.llama_decode(self._context, batch):
                raise RuntimeError("llama_decode failed")
        logits = self._api.llama_get_logits_ith(self._context, -1)
        values: NDArray[np.float32] = np.ctypeslib.as_array(logits, (self._vocab,))
        return values
