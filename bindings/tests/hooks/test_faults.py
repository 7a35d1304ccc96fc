"""Hooks in a model: errors, Ctrl-C, threads, lifetime."""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hooked import names_of, run
from infinilm import GenerationConfig, HookRegistry, Tensor, engine
from tiny import tiny_model


class Stop(Exception):
    """Raised by hooks."""


def test_an_error_at_any_point_leaves_the_model_usable(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    cache = model.new_cache()
    run(model, np.array([7, 7], np.int64), cache=cache)
    reference = model.new_cache()
    run(model, np.array([7, 7], np.int64), cache=reference)
    expected = run(model, cache=reference)
    for name in names_of(model):
        error = Stop(name)

        def guilty(name: str, tensor: Tensor, layer_idx: int, error: Stop = error) -> None:
            raise error

        registry.register_hook(name, guilty)
        with pytest.raises(Stop) as caught:
            run(model, cache=cache)
        assert caught.value is error
        assert cache.length() == 2
        registry.clear()
    assert np.array_equal(run(model, cache=cache), expected)


def test_an_error_passes_through_generation(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    generation = engine.Generation(model, [[1, 2]], GenerationConfig(max_new_tokens=3))
    error = Stop("mine")

    def guilty(name: str, tensor: Tensor, layer_idx: int) -> None:
        raise error

    registry.register_hook("logits", guilty)
    with pytest.raises(Stop) as caught:
        generation.step()
    assert caught.value is error
    assert generation.tokens(0) == [1, 2]
    registry.clear()
    while not generation.done():
        generation.step()
    assert len(generation.tokens(0)) == 5


@pytest.fixture
def interrupt_soon() -> Iterator[None]:
    """Ctrl-C after a moment, while the core computes."""
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_ctrl_c_stops_a_forward_pass(request: pytest.FixtureRequest) -> None:
    model = tiny_model(num_hidden_layers=40, hidden_size=128, intermediate_size=512)
    ids = np.ones((64, 64), np.int64)
    cache = model.new_cache(64)
    request.getfixturevalue("interrupt_soon")
    with pytest.raises(KeyboardInterrupt) as caught:
        model.forward(ids, cache)
    assert any(frame.name == "_forward" for frame in caught.traceback)
    assert cache.length() == 0
    assert run(model).shape == (5, 61)


def test_the_handler_s_own_error_is_what_arrives(model: engine.LlamaForCausalLM) -> None:
    class Alarm(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise Alarm

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(Alarm):
            while True:
                run(model)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert run(model).shape == (5, 61)


def test_one_registry_in_two_threads(registry: HookRegistry) -> None:
    models = [tiny_model(seed=1), tiny_model(seed=2)]
    expected = [run(model) for model in models]
    seen: list[str] = []
    for i, model in enumerate(models):
        model.set_hook_registry(registry, f"m{i}")
    registry.register_hook("layer#_mlp", lambda n, t, i: seen.append(n))
    results: dict[int, list[np.ndarray[Any, Any]]] = {0: [], 1: []}

    def work(i: int) -> None:
        for _ in range(20):
            results[i].append(run(models[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        registry.register_hook("logits", lambda n, t, i: None).remove()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert len(results[i]) == 20
        assert all(np.array_equal(result, expected[i]) for result in results[i])
        assert seen.count(f"m{i}_layer0_mlp") == 20


def test_hooks_on_the_other_thread_are_heard(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    """A hook that this thread registers takes effect in a forward pass that is running in another."""
    waiting, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def pause(name: str, tensor: Tensor, layer_idx: int) -> None:
        waiting.set()
        assert go.wait(60)

    registry.register_hook("layer0_mlp", pause)
    thread = threading.Thread(target=run, args=(model,))
    thread.start()
    assert waiting.wait(60)
    registry.register_hook("logits", lambda n, t, i: seen.append(n))
    go.set()
    thread.join()
    assert seen == ["logits"]


def test_the_lock_is_released_wherever_a_hook_can_be_reached(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    before = engine._callbacks_under_lock()  # type: ignore[attr-defined]
    registry.register_hook("*", lambda n, t, i: None)
    run(model)
    cache = model.new_cache(2)
    model.forward_packed([[1, 2, 3], [4]], [0, 1], cache)
    generation = engine.Generation(
        model, [[1, 2]], GenerationConfig(max_new_tokens=2), [lambda tokens, logits: None]
    )
    generation.step()
    assert engine._callbacks_under_lock() == before  # type: ignore[attr-defined]


def test_logits_processors_edit_and_raise(model: engine.LlamaForCausalLM) -> None:
    calls: list[list[int]] = []

    def favour(tokens: list[int], logits: Tensor) -> None:
        calls.append(tokens)
        logits.numpy()[7] = 1e9

    generation = engine.Generation(
        model, [[1, 2], [3]], GenerationConfig(max_new_tokens=2), [favour, None]
    )
    generation.step()
    assert calls == [[1, 2]]
    assert generation.tokens(0) == [1, 2, 7]

    def guilty(tokens: list[int], logits: Tensor) -> None:
        raise Stop

    generation = engine.Generation(model, [[1]], GenerationConfig(max_new_tokens=2), [guilty])
    with pytest.raises(Stop):
        generation.step()
    with pytest.raises(TypeError, match=r"processors\[0\] must be callable, not int"):
        engine.Generation(model, [[1]], GenerationConfig(), [3])  # type: ignore[list-item]


def test_cycles_through_model_and_generation_are_collected() -> None:
    class Marker:
        pass

    gc.collect()
    before = engine.live_objects()
    marker = Marker()
    ref = weakref.ref(marker)
    model, registry = tiny_model(), HookRegistry()
    model.set_hook_registry(registry)
    registry.register_hook("logits", lambda n, t, i: (model, registry, marker))  # noqa: F821
    generation = engine.Generation(
        model,
        [[1]],
        GenerationConfig(max_new_tokens=2),
        [lambda tokens, logits: (generation, marker)],  # noqa: F821
    )
    generation.step()
    del model, registry, generation, marker
    gc.collect()
    assert ref() is None
    after = engine.live_objects()
    assert (after["models"], after["hook_entries"]) == (before["models"], before["hook_entries"])


def test_a_registry_lives_as_long_as_its_model(model: engine.LlamaForCausalLM) -> None:
    seen: list[str] = []

    def attach() -> None:
        registry = HookRegistry()
        registry.register_hook("logits", lambda n, t, i: seen.append(n))
        model.set_hook_registry(registry)

    attach()
    gc.collect()
    run(model)
    assert seen == ["logits"]


def test_a_generation_keeps_the_hooks_of_its_model() -> None:
    seen: list[str] = []

    def start() -> engine.Generation:
        model, registry = tiny_model(), HookRegistry()
        model.set_hook_registry(registry)
        registry.register_hook("logits", lambda n, t, i: seen.append(n))
        return engine.Generation(model, [[1]], GenerationConfig(max_new_tokens=2))

    generation = start()
    gc.collect()
    generation.step()
    assert seen == ["logits"]


def test_forward_with_hooks_does_not_leak(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    registry.register_hook("*", lambda n, t, i: t.numpy().sum())
    run(model)
    gc.collect()
    before = engine.live_objects()
    for _ in range(20):
        run(model)
    gc.collect()
    assert engine.live_objects() == before
