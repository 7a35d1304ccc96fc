"""The short way: one call from a directory to text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from . import generation
from .model import LlamaForCausalLM
from .progress import Progress
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from . import engine
    from .options import GenerateOptions


def load(
    directory: str | os.PathLike[str],
    device: str = "cpu",
    dtype: Any = None,
    progress: Progress | bool = None,
    *,
    kv_cache_dtype: Any = None,
    quantization: str | None = None,
    group_size: int | None = None,
    activations: str | None = None,
) -> LoadedModel:
    """Read a HuggingFace directory: the model and its tokenizer, together. Arguments as ``from_pretrained``.

    >>> import infinilm
    >>> llm = infinilm.load(infinilm.sample_model())
    >>> text = llm.generate("ROMEO:", max_new_tokens=8)
    >>> model, tokenizer = infinilm.load(infinilm.sample_model())
    """
    tokenizer = Tokenizer.from_pretrained(directory)  # first: it is quick to fail
    model = LlamaForCausalLM.from_pretrained(
        directory,
        device,
        dtype,
        kv_cache_dtype=kv_cache_dtype,
        quantization=quantization,
        group_size=group_size,
        activations=activations,
        progress=progress,
    )
    model.tokenizer = tokenizer
    return LoadedModel(model, tokenizer)


def sample_model() -> str:
    """The directory of the small model inside this package, which writes English drama."""
    return str(Path(__file__).parent / "data" / "sample_model")


class LoadedModel:
    """A model with its tokenizer; unpacks as ``model, tokenizer = loaded``."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
        """Put a model and a tokenizer together."""
        self.model = model
        self.tokenizer = tokenizer

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tokenizer))

    def generate(self, prompt: Any, **options: Unpack[GenerateOptions]) -> Any:
        """Continue prompts; see ``LlamaForCausalLM.generate``."""
        return self.model.generate(prompt, **options)

    def stream(self, prompt: Any, **options: Unpack[GenerateOptions]) -> Iterator[Any]:
        """Continue one prompt piece by piece; see ``LlamaForCausalLM.stream``."""
        return self.model.stream(prompt, **options)

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = ...,
        tools: Sequence[Mapping[str, Any]] | None = ...,
        cache: engine.KvCache | None = ...,
        **options: Any,
    ) -> str: ...
    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        tools: Sequence[Mapping[str, Any]] | None = ...,
        cache: engine.KvCache | None = ...,
        **options: Any,
    ) -> Iterator[str]: ...
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        cache: engine.KvCache | None = None,
        **options: Any,
    ) -> str | Iterator[str]:
        """The assistant's answer to a conversation, or with ``stream=True`` an iterator over its pieces.

        ``messages``: dicts with ``"role"`` and ``"content"``, put into the model's chat template.
        ``cache``: of ``model.new_cache()``; give the same one with every turn and only what is new
        is computed. Without ``max_new_tokens`` or ``max_length`` the answer may take all the room
        there is. Other keywords as ``generate``.

        Raises ``ValueError`` for a model without chat template.
        """
        ids = self.tokenizer.apply_chat_template(messages, tools=tools)
        if cache is not None:
            _keep_common_prefix(cache, ids)
        config = options.get("generation_config") or self.model.generation_config
        lengths = (config.max_new_tokens, config.max_length)
        if not any((*lengths, options.get("max_new_tokens"), options.get("max_length"))):
            options["max_length"] = self.model.config.max_sequence_length()
        pieces = generation.stream(self.model, ids, {**options, "cache": cache}, text=True)
        return pieces if stream else "".join(pieces)

    def __repr__(self) -> str:
        return f"LoadedModel({self.model!r}, {self.tokenizer!r})"


def _keep_common_prefix(cache: engine.KvCache, ids: Sequence[int]) -> None:
    """Forgets what the conversation does not begin with (a template may write an answer otherwise than it came)."""
    common = 0
    for held, wanted in zip(cache.tokens(), ids, strict=False):
        if held != wanted:
            break
        common += 1
    cache.truncate(common)
