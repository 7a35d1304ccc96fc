"""The keywords of ``generate``, checked and made into the engine's GenerationConfig."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .engine import GenerationConfig, KvCache

Processor = Callable[[list[int], NDArray[np.float32]], Union[NDArray[Any], None]]  # noqa: UP007
"""``processor(tokens, logits)``: edits the float32 logits ``[V]`` in place or returns others."""


class GenerateOptions(TypedDict, total=False):
    """The keywords of ``generate`` and ``stream``; None stands for the default."""

    max_new_tokens: int | None
    max_length: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    eos_token_id: int | Sequence[int] | None
    pad_token_id: int | None
    stop_token_ids: int | Sequence[int] | None
    stop: str | Sequence[str] | None
    logits_processor: Processor | Sequence[Processor | None] | None
    cache: KvCache | None
    use_cache: bool | None
    logprobs: bool | None
    prompt_logprobs: bool | None
    return_dict_in_generate: bool | None
    generation_config: GenerationConfig | None


OPTION_NAMES = tuple(GenerateOptions.__annotations__)
_CONFIG_FIELDS = (
    "max_new_tokens",
    "max_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "eos_token_id",
    "pad_token_id",
    "stop_token_ids",
    "use_cache",
    "logprobs",
    "prompt_logprobs",
)
_SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p")
_ELSEWHERE = {
    "attention_mask": "there is no padding: give sequences of different lengths as a list of lists",
    "streamer": "use stream() instead, which gives the text piece by piece",
    "past_key_values": "the KV cache is `cache`, made by model.new_cache()",
    "num_beams": "beam search is not supported",
    "stop_strings": "did you mean 'stop'?",
    "max_tokens": "did you mean 'max_new_tokens'?",
}


@dataclass(frozen=True)
class Settings:
    """What one call of ``generate`` asks for."""

    config: GenerationConfig
    stop: tuple[str, ...]
    processors: list[Any]
    cache: KvCache | None
    as_dict: bool


def settle(options: Mapping[str, Any], default: GenerationConfig, prompts: int) -> Settings:
    """The settings out of keywords, on top of the model's own.

    Raises ``TypeError`` for an unknown keyword or a value of the wrong type, and ``ValueError`` for
    values out of their range and for a contradiction.
    """
    for name in options:
        if name not in OPTION_NAMES:
            raise TypeError(_unknown_text(name))
    given = {name: value for name, value in options.items() if value is not None}
    config = copy.copy(given.get("generation_config") or default)
    _apply(config, given)
    config.check()
    return Settings(
        config=config,
        stop=_stop_strings(given.get("stop")),
        processors=_processors(given.get("logits_processor"), prompts),
        cache=given.get("cache"),
        as_dict=bool(
            given.get("return_dict_in_generate") or config.logprobs or config.prompt_logprobs
        ),
    )


def _apply(config: GenerationConfig, given: Mapping[str, Any]) -> None:
    temperature = given.get("temperature")
    if given.get("do_sample") and temperature == 0:
        raise ValueError("do_sample=True contradicts temperature=0, which is greedy")
    if "max_length" in given and "max_new_tokens" not in given:
        config.max_new_tokens = None  # the file's, which would beat what the caller asks for
    for name in _CONFIG_FIELDS:
        if name in given:
            setattr(config, name, given[name])
    if temperature == 0:
        config.do_sample = False
    elif "do_sample" not in given and any(name in given for name in _SAMPLING_FIELDS):
        config.do_sample = True


def _stop_strings(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"stop must be a str or several, found {type(string).__name__}")
        if not string:
            raise ValueError("stop must not be empty text, which is everywhere")
    return strings


def _processors(given: Any, prompts: int) -> list[Any]:
    if given is None:
        return []
    several = list(given) if isinstance(given, list | tuple) else [given] * prompts
    if len(several) != prompts:
        raise ValueError(
            f"logits_processor has {len(several)} entries for {prompts} prompts: give one for each "
            "(None for none), or a single callable for all"
        )
    for processor in several:
        if processor is not None and not callable(processor):
            raise TypeError(
                f"logits_processor must be callable(tokens, logits), not {type(processor).__name__}"
            )
    return [None if processor is None else _on_numpy(processor) for processor in several]


def _on_numpy(processor: Processor) -> Callable[[list[int], Any], None]:
    """Gives a processor a NumPy view of the engine's logits, and puts back what it returns."""

    def call(tokens: list[int], logits: Any) -> None:
        view = logits.numpy()
        result = processor(tokens, view)
        if result is None or result is view:
            return
        values = np.asarray(result)
        if values.shape != view.shape:
            raise ValueError(
                f"a logits processor must return logits of shape {view.shape} or None, found shape "
                f"{values.shape}"
            )
        view[...] = values

    return call


def _unknown_text(name: str) -> str:
    text = f"generate() has no option {name!r}"
    if name in _ELSEWHERE:
        return f"{text}: {_ELSEWHERE[name]}"
    near = difflib.get_close_matches(name, OPTION_NAMES, n=1)
    if near:
        return f"{text}; did you mean {near[0]!r}?"
    return f"{text}; it has {', '.join(OPTION_NAMES)}"
