"""Speed of one model on the GPU: decoding and a prompt, in each format, beside the device's limits."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import facts
import infinilm
import numpy as np
import weights
from infinilm import engine
from infinilm.benchmark.shapes import layer_parameters

_FORMATS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bf16", {}),
    ("int8", {"quantization": "int8"}),
    ("int4", {"quantization": "int4"}),
)
_BATCHES = (1, 8, 64)
_PROMPT = 32
_STEPS = 48
_WARM = 12  # steps: recordings and choices are made in these
_LONG_PROMPT = 2048
_SAMPLING: dict[str, dict[str, Any]] = {
    "top_k 50": {"temperature": 0.8},
    "top_p 0.9": {"temperature": 0.8, "top_k": 0, "top_p": 0.9},
    "top_k 50, repetition 1.1": {"temperature": 0.8, "repetition_penalty": 1.1},
}


def _generation(
    model: infinilm.LlamaForCausalLM, batch: int, prompt: int, new: int, **settings: Any
) -> Any:
    rng = np.random.default_rng(batch)
    prompts = rng.integers(0, model.config.vocab_size, (batch, prompt))
    config = engine.GenerationConfig(max_new_tokens=new, eos_token_id=[], **settings)
    return engine.Generation(model._engine, prompts.tolist(), config)


def _step_seconds(model: infinilm.LlamaForCausalLM, batch: int, **settings: Any) -> float:
    """Median seconds of a step that gives one token to each sequence."""
    generation = _generation(model, batch, _PROMPT, _STEPS + _WARM + 2, **settings)
    times = []
    for _ in range(_STEPS + _WARM):
        start = time.perf_counter()
        generation.step()  # ends with the tokens on the host
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARM:])


def _one_prompt_seconds(
    model: infinilm.LlamaForCausalLM, prompt: int, before: Callable[[], Any]
) -> float:
    before()
    generation = _generation(model, 1, prompt, 1)
    start = time.perf_counter()
    generation.step()
    return time.perf_counter() - start


def _prompt_seconds(
    model: infinilm.LlamaForCausalLM, prompt: int, before: Callable[[], Any] = lambda: None
) -> float:
    """Median seconds of prompts in a row, once they have been going on for a while."""
    times: list[float] = []
    while sum(times) < facts.LOAD or len(times) < 6:
        times.append(_one_prompt_seconds(model, prompt, before))
    return statistics.median(times[len(times) // 2 :])


def _prompt_seconds_after_pause(model: infinilm.LlamaForCausalLM, prompt: int) -> float:
    """Median seconds of prompts, each after a pause."""
    times = [_one_prompt_seconds(model, prompt, lambda: time.sleep(facts.PAUSE)) for _ in range(6)]
    return statistics.median(times[1:])


def _keep(tensor: infinilm.Tensor) -> Any:
    return tensor


def _read(tensor: infinilm.Tensor) -> Any:
    return tensor.numpy()


def _let_leave(tensor: infinilm.Tensor) -> Any:
    return tensor.to("cpu", non_blocking=True)


def _hook_cost(
    model: infinilm.LlamaForCausalLM,
    capture: Callable[[infinilm.Tensor], Any],
    seconds: Callable[[], float],
    plain: float,
    most_kept: int | None = None,
) -> float:
    """What capturing every layer's output adds to a run, as a share of it."""
    registry = infinilm.HookRegistry()
    kept: deque[Any] = deque(maxlen=most_kept)
    registry.register_hook(
        "layer#_output", lambda name, tensor, layer: kept.append(capture(tensor))
    )
    model.set_hook_registry(registry)
    try:
        return seconds() / plain - 1
    finally:
        model.set_hook_registry(infinilm.HookRegistry())


def _capture_costs(name: str, model: infinilm.LlamaForCausalLM, step: float, prompt: float) -> None:
    """The same without a callback: captures, of prompts only the last one's."""
    registry = infinilm.HookRegistry()
    model.set_hook_registry(registry)
    for to_cpu in (False, True):
        row = f"infinilm {name} one captured residual a layer{', to the CPU' if to_cpu else ''}"
        with registry.capture("layer#_output", to_cpu):
            _print(f"{row}, batch 1", cost=_step_seconds(model, 1) / step - 1)
        with registry.capture("layer#_output", to_cpu) as capture:
            seconds = _prompt_seconds(model, _LONG_PROMPT, before=capture.take)
            _print(f"{row}, prompt of {_LONG_PROMPT}", cost=seconds / prompt - 1)


def _hook_costs(name: str, model: infinilm.LlamaForCausalLM, step: float, prompt: float) -> None:
    """Captures that stay, that are waited for, and that leave on their own; of prompts the last one's are kept."""
    layers = model.config.num_hidden_layers
    for how, capture in (
        ("kept residual", _keep),
        ("residual read by numpy()", _read),
        ("residual to the CPU, non_blocking", _let_leave),
    ):
        row = f"infinilm {name} one {how} a layer"
        cost = _hook_cost(model, capture, lambda: _step_seconds(model, 1), step)
        _print(f"{row}, batch 1", cost=cost)
        cost = _hook_cost(
            model, capture, lambda: _prompt_seconds(model, _LONG_PROMPT), prompt, layers
        )
        _print(f"{row}, prompt of {_LONG_PROMPT}", cost=cost)


def _print(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def _measure(name: str, directory: Path, label: str, options: dict[str, Any]) -> None:
    limits = facts.limits()
    start = time.perf_counter()
    model = infinilm.LlamaForCausalLM.from_pretrained(directory, "cuda", "bfloat16", **options)
    loading = time.perf_counter() - start
    nbytes = model._engine.nbytes_per_pass()
    plain = 0.0
    for batch in _BATCHES:
        seconds = _step_seconds(model, batch)
        plain = plain or seconds
        share = nbytes / seconds / limits.bandwidth
        _print(
            f"infinilm {name} {label} decode, batch {batch}",
            tokens_per_second=batch / seconds,
            ms=seconds * 1e3,
            of_bandwidth=share,
        )
        if label == "bf16":
            for what, settings in _SAMPLING.items():
                cost = _step_seconds(model, batch, do_sample=True, **settings) / seconds - 1
                _print(f"infinilm {name} sampling, {what}, batch {batch}", cost=cost)
    seconds = _prompt_seconds(model, _LONG_PROMPT)
    operations = 2.0 * layer_parameters(model.config) * _LONG_PROMPT
    _print(
        f"infinilm {name} {label} prompt of {_LONG_PROMPT}",
        tokens_per_second=_LONG_PROMPT / seconds,
        of_product_rate=operations / seconds / limits.rate,
    )
    after_pause = _prompt_seconds_after_pause(model, _LONG_PROMPT)
    _print(
        f"infinilm {name} {label} prompt of {_LONG_PROMPT} after a pause",
        tokens_per_second=_LONG_PROMPT / after_pause,
        of_product_rate=operations / after_pause / limits.rate_after_pause,
    )
    if label == "bf16":
        _print(f"infinilm {name} loading", seconds=loading)
        _hook_costs(name, model, plain, seconds)
        _capture_costs(name, model, plain, seconds)
    del model
    gc.collect()


def main() -> int:
    """``speed.py SHAPE``"""
    name = sys.argv[1]
    failures = 0
    with weights.checkpoint(name) as directory:
        for label, options in _FORMATS:
            try:
                _measure(name, directory, label, options)
            except Exception as error:  # the other formats are still worth their time
                failures += 1
                print(f"{name} {label}: {type(error).__name__}: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
