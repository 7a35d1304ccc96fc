"""Running generations: prompts in, tokens and text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import engine
from .options import Settings, settle
from .text_stream import StopStrings, TextStream
from .token_input import Ids, Prompts, is_text, read_prompts

if TYPE_CHECKING:
    from .model import LlamaForCausalLM
    from .tokenizer import Tokenizer


@dataclass
class GenerateOutput:
    """What ``generate`` returns when more than the sequences is asked for.

    All but ``sequences`` are lists with one entry for each prompt.
    """

    sequences: Ids | list[Ids]
    """Prompt and continuation as token ids, as ``generate`` returns them without ``return_dict_in_generate``."""
    texts: list[str] | None
    """Prompt and continuation as text, for prompts that were text."""
    finish_reasons: list[str]
    """``"eos"``, ``"stop"`` (a stop id or string) or ``"length"``."""
    logprobs: list[NDArray[np.float32]] | None = None
    """Natural log-probability of each token of the continuation, by the model's own distribution."""
    prompt_logprobs: list[NDArray[np.float32]] | None = None
    """The same for the prompt's tokens; NaN for the first one."""


def generate(model: LlamaForCausalLM, prompts: Any, options: dict[str, Any]) -> Any:
    """Runs prompts to their end; see ``LlamaForCausalLM.generate``."""
    texts = _read_texts(prompts)
    read = read_prompts(prompts) if texts is None else _encode(model, prompts, texts)
    run = Run(model, read.sequences, settle(options, model.generation_config, len(read.sequences)))
    streams = [TextStream(model.tokenizer, ids.tolist()) for ids in read.sequences if texts]
    while not run.done():
        run.step()
    sequences = _sequences(run, read, padded=texts is None)
    if texts is not None:
        texts = [
            text + "".join(map(stream.put, run.continuation(i))) + stream.flush()
            for i, (text, stream) in enumerate(zip(texts, streams, strict=True))
        ]
    if run.settings.as_dict:
        return run.output(sequences, texts)
    if texts is not None:
        return texts[0] if read.one else texts
    return sequences


def stream(
    model: LlamaForCausalLM, prompt: Any, options: dict[str, Any], *, text: bool | None = None
) -> Iterator[Any]:
    """Iterates over the continuation of one prompt; see ``LlamaForCausalLM.stream``.

    ``text``: whether it gives text rather than ids, by default as the prompt is.
    """
    texts = _read_texts(prompt)
    read = read_prompts(prompt) if texts is None else _encode(model, prompt, texts)
    if not read.one:
        raise ValueError("stream() takes one prompt; for several, call it once for each")
    settings = settle(options, model.generation_config, 1)
    if settings.as_dict:
        raise ValueError(
            "stream() gives tokens or text only; logprobs, prompt_logprobs and "
            "return_dict_in_generate belong to generate()"
        )
    run = Run(model, read.sequences, settings)
    if text is None:
        text = texts is not None
    return _stream_text(run, model.tokenizer) if text else _stream_ids(run)


class Run:
    """One generation of one or several prompts, step by step."""

    def __init__(self, model: LlamaForCausalLM, prompts: Sequence[Ids], settings: Settings) -> None:
        self.settings = settings
        self._stops: list[StopStrings] = []
        if settings.stop:
            tokenizer = model.tokenizer
            self._stops = [StopStrings(tokenizer, settings.stop, ids.tolist()) for ids in prompts]
        self._searched = [len(ids) for ids in prompts]
        self._generation = engine.Generation(
            model._engine, list(prompts), settings.config, settings.processors, settings.cache
        )

    def done(self) -> bool:
        """True when every sequence has ended."""
        return self._generation.done()

    def step(self) -> None:
        """One more token for every sequence that has not ended."""
        self._generation.step()
        for index, stop in enumerate(self._stops):
            new = self.tokens(index, self._searched[index])
            self._searched[index] += len(new)
            for token in new:
                if stop.put(token):
                    self._generation.finish(index, "stop")

    def tokens(self, index: int, begin: int = 0) -> list[int]:
        """Prompt and continuation from a position on."""
        return self._generation.tokens_from(index, begin)

    def continuation(self, index: int) -> list[int]:
        """What was generated."""
        return self.tokens(index, self._generation.prompt_length(index))

    def output(self, sequences: Ids | list[Ids], texts: list[str] | None) -> GenerateOutput:
        """Everything there is to tell about a run."""
        run, config = self._generation, self.settings.config
        indices = range(len(run))
        return GenerateOutput(
            sequences=sequences,
            texts=texts,
            finish_reasons=[run.finish_reason(i) for i in indices],
            logprobs=[np.array(run.logprobs(i), np.float32) for i in indices]
            if config.logprobs
            else None,
            prompt_logprobs=[np.array(run.prompt_logprobs(i), np.float32) for i in indices]
            if config.prompt_logprobs
            else None,
        )


def _stream_ids(run: Run) -> Iterator[int]:
    position = len(run.tokens(0))
    while not run.done():
        run.step()
        new = run.tokens(0, position)
        position += len(new)
        yield from new


def _stream_text(run: Run, tokenizer: Tokenizer) -> Iterator[str]:
    decoder = TextStream(tokenizer, run.tokens(0))
    for token in _stream_ids(run):
        piece = decoder.put(token)
        if piece:
            yield piece
    rest = decoder.flush()
    if rest:
        yield rest


def _read_texts(prompts: Any) -> list[str] | None:
    """The prompts if they are text, else None."""
    if not is_text(prompts):
        return None
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"prompt {index} must be a str as the others, not {type(text).__name__}"
            )
    return texts


def _encode(model: LlamaForCausalLM, prompts: Any, texts: list[str]) -> Prompts:
    ids = [np.array(row, np.int64) for row in model.tokenizer.encode_batch(texts)]
    for index, row in enumerate(ids):
        if not row.size:
            raise ValueError(
                f"prompt {index} is {texts[index]!r}, which has no tokens, and this model's "
                "tokenizer puts none in front"
            )
    return Prompts(ids, one=isinstance(prompts, str))


def _sequences(run: Run, read: Prompts, *, padded: bool) -> Ids | list[Ids]:
    """In the shape of the prompts: one array, a padded batch, or a list of arrays."""
    rows = [np.array(run.tokens(i), np.int64) for i in range(len(read.sequences))]
    if read.one:
        return rows[0]
    if not (padded and read.rectangular):
        return rows
    config = run.settings.config
    pad = config.pad_token_id
    if pad is None:
        pad = config.eos_token_id[0] if config.eos_token_id else 0
    batch = np.full((len(rows), max(len(row) for row in rows)), pad, np.int64)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch
