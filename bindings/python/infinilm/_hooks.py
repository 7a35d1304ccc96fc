"""What Python adds to the engine's registry, models and generations: it keeps the callables (see _slots.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from infinilm._slots import Slot, check_callable

if TYPE_CHECKING:
    import os
    import types

    from infinilm.engine import (
        Capture,
        Captured,
        HookHandle,
        HookRegistry,
        KvCache,
        LlamaForCausalLM,
        Quantization,
        StepInfo,
        Tensor,
    )


def represent(proxy: object) -> str:
    """Return a proxy's repr."""
    method = getattr(type(proxy), "_represent", None)
    return str(method(proxy)) if method else object.__repr__(proxy)


class Readable:
    """A repr of all attributes."""

    def _represent(self) -> str:
        names = [
            name
            for name, value in vars(type(self)).items()
            if isinstance(value, property) and name != "thisown"
        ]
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({values})"


class HookRegistryMethods:
    """The Python side of HookRegistry."""

    def register_hook(
        self, name: str, callback: Callable[[str, Tensor, int], object]
    ) -> HookHandle:
        """Call ``callback(name, tensor, layer_idx)`` at every point that ``name`` matches.

        ``name``: a hook point, an alias of one, or a glob over the whole name: ``*``, ``?``, ``[...]`` as in fnmatch,
        and ``#`` for a number, so that ``layer#_output`` is every layer's residual stream. ``callback`` gets the
        point's name, a Tensor on the engine's own memory (writing into it edits the computation from there on) and the
        layer's index, -1 where there is none; what it returns is ignored, and what it raises stops the forward pass
        and reaches its caller. The same name again replaces the callback and keeps its place.

        Returns a handle with ``remove()`` and ``calls``. TypeError for what cannot be called, ValueError for an
        empty name.
        """
        check_callable(callback, "callback")
        slot = Slot(callback, self.__dict__.setdefault("_slots", set()))
        try:
            handle: HookHandle = self._register_hook(name, slot)  # type: ignore[attr-defined]
        except BaseException:
            slot.drop()
            raise
        return handle

    def capture(self, name: str, to_cpu: bool = False) -> Capture:
        """Keep what the points hold that ``name`` matches, pass after pass, without a callback.

        ``name`` is as in ``register_hook``; one name may have any number of captures. What is kept is what hooks
        registered before this left there, and is there when the pass has ended. ``to_cpu`` keeps it on the CPU, for
        which it leaves a GPU while the model runs on. Since a capture only reads, a GPU goes on recording steps that
        nobody else watches; scores and weights of attention cost what they cost a hook.

        >>> import infinilm
        >>> model, tokenizer = infinilm.load(infinilm.sample_model())
        >>> registry = infinilm.HookRegistry()
        >>> model.set_hook_registry(registry)
        >>> with registry.capture("layer#_output") as captured:
        ...     logits = model.forward(tokenizer.encode("ROMEO:"))
        >>> [tensor.shape for tensor in captured["layer0_output"]]
        [(3, 192)]

        It ends with the ``with`` block, with ``remove()``, or when nobody holds it any more. ValueError for an empty
        name.
        """
        capture: Capture = self._capture(name, to_cpu)  # type: ignore[attr-defined]
        return capture

    def _represent(self) -> str:
        return f"HookRegistry({self.names()})"  # type: ignore[attr-defined]


class CaptureMethods(Readable):
    """The Python side of Capture."""

    def __enter__(self) -> Capture:
        return self  # type: ignore[return-value]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.remove()  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Captured]:
        return iter(self.values())  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> list[Tensor]:
        """Return the tensors of one point, in the order of the passes. KeyError if it keeps none of that name."""
        tensors = [value.tensor for value in self._of(name)]  # type: ignore[attr-defined]
        if not tensors:
            names = dict.fromkeys(repr(value.name) for value in self)
            raise KeyError(f"nothing captured of {name!r}; there is {', '.join(names) or 'none'}")
        return tensors


class CapturedMethods:
    """The Python side of Captured."""

    @property
    def tensor(self) -> Tensor:
        """The values, float32; the engine never writes to them again."""
        tensor: Tensor = self._tensor()  # type: ignore[attr-defined]
        return tensor

    @property
    def step(self) -> StepInfo:
        """The pass, and which rows are whose."""
        step: StepInfo = self._step()  # type: ignore[attr-defined]
        return step

    def _represent(self) -> str:
        return f"<Captured {self.name} {self.tensor.shape} of pass {self.step.step}>"  # type: ignore[attr-defined]


class KvCacheMethods:
    """The Python side of KvCache."""

    def _represent(self) -> str:
        lengths = [self.length(i) for i in range(self.batch_size())]  # type: ignore[attr-defined]
        return f"KvCache(lengths={lengths}, dtype={self.dtype()})"  # type: ignore[attr-defined]


class QuantizationMethods:
    """The Python side of Quantization."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __bool__(self) -> bool:
        return bool(self.bits)  # type: ignore[attr-defined]

    def _represent(self) -> str:
        return f"<Quantization: {self}>"


class ModelMethods:
    """The Python side of LlamaForCausalLM."""

    _registry: HookRegistry | None = None

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        device: str = "cpu",
        dtype: Any = None,
        progress: Callable[[int, int], object] | None = None,
        kv_cache_dtype: Any = None,
        quantization: Quantization | None = None,
    ) -> LlamaForCausalLM:
        """Read a HuggingFace directory as it is: config.json, and model.safetensors or its shards.

        ``dtype``: the compute type, by default what the checkpoint's config names. ``kv_cache_dtype``: of the caches,
        by default the compute type. ``progress(done, total)`` hears how many bytes are read. ``quantization``: rounds
        the weights while they are loaded. FileNotFoundError, ValueError, OSError; never half loaded.
        """
        given = () if quantization is None else (quantization,)
        model: LlamaForCausalLM = cls._from_pretrained(  # type: ignore[attr-defined]
            directory, device, dtype, progress, kv_cache_dtype, *given
        )
        return model

    def new_cache(self, batch_size: int = 1, dtype: Any = None) -> KvCache:
        """Make an empty cache; ``dtype``: float32, bfloat16 or int8, by default ``kv_cache_dtype()``."""
        cache: KvCache = self._new_cache(batch_size, dtype)  # type: ignore[attr-defined]
        return cache

    def forward(
        self, input_ids: Any, cache: KvCache | None = None, logits_to_keep: int = 0
    ) -> Tensor:
        """Run the model on int64 ``input_ids`` [tokens] or [batch, tokens].

        Returns float32 logits [tokens, V] or [batch, tokens, V], with ``logits_to_keep`` = n > 0 those of the last n
        tokens only. Continues ``cache`` if given. IndexError for a token outside of the vocabulary, ValueError for a
        sequence past the limit or a batch that is not the cache's.
        """
        logits: Tensor = self._forward(input_ids, cache, logits_to_keep)  # type: ignore[attr-defined]
        return logits

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Write a HuggingFace directory that loads again to the same bits: config.json and model.safetensors.

        Weights go out as they are kept, quantised ones in compressed-tensors' pack-quantized format.
        ``progress(done, total)`` hears bytes. Each file is renamed into place when both are complete: a failure
        (OSError, with the path) leaves what was there. ValueError for what HuggingFace's config.json cannot express,
        and for quantised weights that are not finite.
        """
        self._save_pretrained(directory, progress)  # type: ignore[attr-defined]

    def set_hook_registry(self, registry: HookRegistry | None, prefix: str = "") -> None:
        """Call the registry's hooks from now on; None detaches. With a prefix p the points are called p_layer0_..."""
        self._set_hook_registry(registry, prefix)  # type: ignore[attr-defined]
        self._registry = registry  # which holds the callables: the core's registry does not

    def hook_registry(self) -> HookRegistry | None:
        """Return the registry that was set, the same object."""
        return self._registry

    def _represent(self) -> str:
        state = "" if self.is_loaded() else ", no weights yet"  # type: ignore[attr-defined]
        config = self.config()  # type: ignore[attr-defined]
        return (
            f"<{type(self).__name__}: {config.model_type}, {config.num_hidden_layers} layers,"
            f" hidden_size {config.hidden_size}, {self.device()}{state}>"  # type: ignore[attr-defined]
        )


class GenerationMethods:
    """The Python side of Generation."""

    def _keep(
        self, model: LlamaForCausalLM, processors: Iterable[Callable[..., object] | None]
    ) -> list[Slot | None]:
        table: set[Slot] = set()
        self._kept = (model, table)  # whose registry and processors the core's objects do not hold
        slots: list[Slot | None] = []
        for i, processor in enumerate(processors):
            if processor is not None:
                check_callable(processor, f"processors[{i}]")
            slots.append(None if processor is None else Slot(processor, table))
        return slots

    def __len__(self) -> int:
        return int(self.size())  # type: ignore[attr-defined]
