"""Nothing is kept: by counts of what is alive, and under the leak sanitizer (tox -e asan) by every allocation."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable

import numpy as np
import pytest
from infinilm import GenerationConfig, HookRegistry, LlamaConfig, Tensor, engine
from tiny import tiny_model

IDS = np.array([3, 1, 4, 1, 5], np.int64)


class Stop(Exception):
    """Raised by hooks."""


def forward_with_hooks() -> None:
    model, registry = tiny_model(), HookRegistry()
    model.set_hook_registry(registry)
    registry.register_hook("*", lambda n, t, i: (model, t.numpy().sum()))
    model.forward(IDS)
    registry.register_hook("layer0_mlp", lambda n, t, i: t).remove()
    registry.register_hook("*", lambda n, t, i: registry.clear())
    model.forward(IDS)


def errors_in_hooks() -> None:
    model, registry = tiny_model(), HookRegistry()
    model.set_hook_registry(registry)

    def guilty(name: str, tensor: Tensor, layer_idx: int) -> None:
        raise Stop(name, tensor)

    for name in ("layer1_attention_scores", "logits"):
        registry.register_hook(name, guilty)
        with pytest.raises(Stop):
            model.forward(IDS, model.new_cache())
    with pytest.raises(IndexError):
        model.forward(np.array([10**6]))
    with pytest.raises(TypeError):
        registry.register_hook("a", 3)  # type: ignore[arg-type]


def generation() -> None:
    model = tiny_model()
    run = engine.Generation(
        model,
        [[1, 2], [3]],
        GenerationConfig(max_new_tokens=4, do_sample=True, logprobs=True),
        [lambda tokens, logits: (run, logits.numpy().max()), None],
        model.new_cache(2),
    )
    while not run.done():
        run.step()


def arrays() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for source in (array, array.T, array[::-1]):
        tensor = Tensor.from_numpy(source)
        tensor.contiguous().numpy()
        tensor.to("cpu").clone().tolist()
    tensor = Tensor.from_numpy(array)
    for version in (None, (1, 0)):
        tensor.__dlpack__(max_version=version)
        Tensor.from_dlpack(tensor.__dlpack__(max_version=version)).numpy()
    np.from_dlpack(tensor)
    with pytest.raises(BufferError):
        Tensor.from_numpy(array[::-1]).__dlpack__()


def configs() -> None:
    config = LlamaConfig(eos_token_id=[1, 2], rope_scaling={"rope_type": "linear", "factor": 2.0})
    LlamaConfig.from_json(config.to_json())
    for value in ([1, "x"], 2**64, None):
        with pytest.raises((TypeError, OverflowError)):
            config.eos_token_id = value  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"(?i)json"):
        LlamaConfig.from_json("{")


def weights() -> None:
    model = tiny_model()
    state = model.state_dict()
    model.load_state_dict(state)
    del state["lm_head.weight"]
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        model.load_state_dict(state)


WORK = [forward_with_hooks, errors_in_hooks, generation, arrays, configs, weights]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_nothing_of_the_core_stays_alive(work: Callable[[], None]) -> None:
    work()
    gc.collect()
    before = engine.live_objects()
    for _ in range(5):
        work()
    gc.collect()
    assert engine.live_objects() == before


@pytest.mark.skipif(
    bool(os.environ.get("INFINILM_SANITIZED")),
    reason="the sanitizers keep freed memory for a while",
)
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_the_process_does_not_grow(work: Callable[[], None]) -> None:
    def rounds(count: int) -> int:
        for i in range(count):
            work()
            if i % 10 == 9:
                gc.collect()  # or cycles would wait and make a peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = rounds(20)
    grown = rounds(100) - before
    assert grown < 4096, f"{grown} KiB in 100 rounds"
