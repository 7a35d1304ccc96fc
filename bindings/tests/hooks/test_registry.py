"""The registry without a model: order, replacing, globs, handles, errors, cycles, reference counts, threads."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import weakref
from typing import Any

import numpy as np
import pytest
from infinilm import HookRegistry, Tensor, engine


@pytest.fixture
def tensor() -> Tensor:
    return Tensor.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.fixture
def registry() -> HookRegistry:
    return HookRegistry()


class Calls(list[Any]):
    """Records what it is called with."""

    def __call__(self, name: str, tensor: Tensor, layer_idx: int) -> str:
        self.append((name, tensor.shape, layer_idx))
        return "ignored"


def test_a_callback_gets_name_tensor_and_layer(registry: HookRegistry, tensor: Tensor) -> None:
    calls = Calls()
    registry.register_hook("point", calls)
    registry.call_hook("point", tensor, 3)
    registry.call_hook("point", tensor)
    registry.call_hook("other", tensor, 3)
    assert calls == [("point", (2, 3), 3), ("point", (2, 3), -1)]
    assert type(calls[0][0]) is str
    assert type(calls[0][2]) is int


def test_keyword_arguments(registry: HookRegistry, tensor: Tensor) -> None:
    calls = Calls()
    registry.register_hook(name="point", callback=calls)
    registry.call_hook(name="point", tensor=tensor, layer_idx=2)
    assert calls == [("point", (2, 3), 2)]


def test_every_match_fires_in_the_order_of_registration(
    registry: HookRegistry, tensor: Tensor
) -> None:
    order: list[str] = []
    for name in ("layer0_*", "layer0_mlp", "*", "layer1_mlp", "layer#_mlp"):
        registry.register_hook(name, lambda n, t, i, name=name: order.append(name))
    registry.call_hook("layer0_mlp", tensor, 0)
    assert order == ["layer0_*", "layer0_mlp", "*", "layer#_mlp"]
    assert registry.names() == ["layer0_*", "layer0_mlp", "*", "layer1_mlp", "layer#_mlp"]


def test_the_same_name_again_replaces_in_place(registry: HookRegistry, tensor: Tensor) -> None:
    order: list[str] = []
    first = registry.register_hook("a", lambda n, t, i: order.append("old a"))
    registry.register_hook("*", lambda n, t, i: order.append("glob"))
    registry.call_hook("a", tensor)
    second = registry.register_hook("a", lambda n, t, i: order.append("new a"))
    registry.call_hook("a", tensor)
    assert order == ["old a", "glob", "new a", "glob"]
    assert (first.active, first.calls) == (False, 1)
    assert (second.active, second.calls) == (True, 1)
    first.remove()  # inert
    assert registry.names() == ["a", "*"]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("layer#_output", ["layer0_output", "layer31_output"], ["layer0_attention_output"]),
        ("layer*_output", ["layer0_output", "layer0_attention_output"], ["layer0_mlp"]),
        ("layer?_mlp", ["layer0_mlp"], ["layer10_mlp"]),
        ("layer[0-2]_mlp", ["layer0_mlp", "layer2_mlp"], ["layer3_mlp"]),
        ("layer[!0]_mlp", ["layer1_mlp"], ["layer0_mlp"]),
        ("#", ["0", "123"], ["", "1a"]),
        ("mlp", ["mlp"], ["layer0_mlp", "mlp_"]),
    ],
)
def test_globs_match_the_whole_name(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [name for name in matching + others if engine.glob_match(pattern, name)] == matching


def test_size_and_emptiness(registry: HookRegistry) -> None:
    assert not registry.has_hooks()
    assert len(registry) == 0
    registry.register_hook("a", print)
    registry.register_hook("b", print)
    assert registry.has_hooks()
    assert len(registry) == 2
    assert repr(registry) == "HookRegistry(['a', 'b'])"
    registry.clear()
    assert not registry.has_hooks()
    assert registry.names() == []


def test_handles(registry: HookRegistry, tensor: Tensor) -> None:
    handle = registry.register_hook("a*", Calls())
    assert (handle.name, handle.calls, handle.active) == ("a*", 0, True)
    registry.call_hook("ab", tensor)
    assert handle.calls == 1
    handle.remove()
    handle.remove()
    registry.call_hook("ab", tensor)
    assert (handle.calls, handle.active, len(registry)) == (1, False, 0)
    assert repr(handle) == "HookHandle(calls=1, name='a*', active=False)"


def test_a_handle_outlives_its_registry() -> None:
    handle = HookRegistry().register_hook("a", print)
    gc.collect()
    assert not handle.active
    handle.remove()


@pytest.mark.parametrize("value", [None, 1, "name", b"x", []])
def test_what_cannot_be_called_is_refused(registry: HookRegistry, value: Any) -> None:
    with pytest.raises(TypeError, match=f"callback must be callable, not {type(value).__name__}"):
        registry.register_hook("a", value)
    assert len(registry) == 0


def test_names_are_checked(registry: HookRegistry) -> None:
    with pytest.raises(ValueError, match="name"):
        registry.register_hook("", print)
    with pytest.raises(TypeError, match="name must be a str, not int"):
        registry.register_hook(3, print)  # type: ignore[arg-type]
    assert len(registry) == 0
    assert not registry.__dict__.get("_slots")


def test_call_hook_checks_its_arguments(registry: HookRegistry, tensor: Tensor) -> None:
    with pytest.raises(TypeError, match="tensor must be a Tensor or an array, not str"):
        registry.call_hook("a", "no tensor")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer_idx must be an int, not float"):
        registry.call_hook("a", tensor, 1.0)  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match="layer_idx"):
        registry.call_hook("a", tensor, 2**40)


class Stop(Exception):
    """An error with state of its own."""


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, SystemExit, StopIteration, MemoryError])
def test_an_error_reaches_the_caller_as_the_same_object(
    registry: HookRegistry, tensor: Tensor, kind: type[BaseException]
) -> None:
    error = kind("mine")
    cause = ValueError("cause")

    def guilty(name: str, tensor: Tensor, layer_idx: int) -> None:
        raise error from cause

    after = Calls()
    registry.register_hook("a", guilty)
    registry.register_hook("*", after)
    with pytest.raises(kind) as caught:
        registry.call_hook("a", tensor)
    assert caught.value is error
    assert error.__cause__ is cause
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == "guilty"
    assert after == []


def test_errors_do_not_leak(registry: HookRegistry, tensor: Tensor) -> None:
    alive = []

    def guilty(name: str, tensor: Tensor, layer_idx: int) -> None:
        error = Stop("mine")
        alive.append(weakref.ref(error))
        raise error

    registry.register_hook("a", guilty)
    for _ in range(100):
        with pytest.raises(Stop):
            registry.call_hook("a", tensor)
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0


def test_registering_removing_and_clearing_inside_a_callback(
    registry: HookRegistry, tensor: Tensor
) -> None:
    late = Calls()

    def change(name: str, tensor: Tensor, layer_idx: int) -> None:
        registry.clear()
        registry.register_hook("late", late)

    registry.register_hook("a", change)
    registry.call_hook("a", tensor)
    registry.call_hook("a", tensor)
    registry.call_hook("late", tensor)
    assert registry.names() == ["late"]
    assert len(late) == 1


def test_a_callback_may_remove_itself(registry: HookRegistry, tensor: Tensor) -> None:
    seen: list[int] = []

    def once(name: str, tensor: Tensor, layer_idx: int) -> None:
        handle.remove()
        gc.collect()
        seen.append(layer_idx)

    handle = registry.register_hook("a", once)
    registry.call_hook("a", tensor, 5)
    registry.call_hook("a", tensor, 6)
    assert seen == [5]


def test_callbacks_may_call_hooks(registry: HookRegistry, tensor: Tensor) -> None:
    inner = Calls()
    registry.register_hook("inner", inner)
    registry.register_hook("outer", lambda n, t, i: registry.call_hook("inner", t, i + 1))
    registry.call_hook("outer", tensor, 1)
    assert inner == [("inner", (2, 3), 2)]


def test_reference_counts_are_what_they_were(tensor: Tensor) -> None:
    calls = Calls()
    before = sys.getrefcount(calls)
    entries = engine.live_objects()["hook_entries"]
    registry = HookRegistry()
    handles = [registry.register_hook(f"a{i}", calls) for i in range(10)]
    registry.call_hook("a1", tensor)
    handles[0].remove()
    registry.register_hook("a1", calls)
    registry.clear()
    assert sys.getrefcount(calls) == before
    assert engine.live_objects()["hook_entries"] == entries
    registry.register_hook("b", calls)
    del registry
    assert sys.getrefcount(calls) == before
    assert engine.live_objects()["hook_entries"] == entries


def test_the_arguments_of_a_callback_do_not_leak(registry: HookRegistry, tensor: Tensor) -> None:
    buffers = engine.live_objects()["buffers"]
    registry.register_hook("*", lambda n, t, i: t.numpy().sum())
    for _ in range(100):
        registry.call_hook("a", tensor)
    assert engine.live_objects()["buffers"] == buffers


def test_a_cycle_through_a_closure_is_collected() -> None:
    class Marker:
        pass

    gc.collect()  # what other tests have left
    registry, marker = HookRegistry(), Marker()
    registry.register_hook("a", lambda n, t, i: (registry, marker))  # noqa: F821
    gc.collect()
    entries = engine.live_objects()["hook_entries"]
    ref = weakref.ref(marker)
    del registry, marker
    gc.collect()
    assert ref() is None
    assert engine.live_objects()["hook_entries"] == entries - 1


def test_a_bound_method_that_owns_its_registry_is_collected() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.registry = HookRegistry()
            self.handle = self.registry.register_hook("a", self.record)

        def record(self, name: str, tensor: Tensor, layer_idx: int) -> None:
            pass

    ref = weakref.ref(Recorder())
    gc.collect()
    assert ref() is None


def test_many_threads(registry: HookRegistry, tensor: Tensor) -> None:
    """Calling, registering and clearing at once: no deadlock, no crash, every call arrives."""
    stop = threading.Event()
    calls = Calls()
    errors: list[BaseException] = []

    def change() -> None:
        try:
            while not stop.is_set():
                registry.register_hook("other*", lambda n, t, i: None)
                registry.register_hook("extra", print).remove()
        except BaseException as error:
            errors.append(error)

    registry.register_hook("a", calls)
    changers = [threading.Thread(target=change) for _ in range(2)]
    callers = [
        threading.Thread(target=lambda: [registry.call_hook("a", tensor, 1) for _ in range(300)])
        for _ in range(3)
    ]
    for thread in changers + callers:
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    for thread in changers:
        thread.join()
    assert errors == []
    assert len(calls) == 900


def test_a_callback_dies_where_it_may(registry: HookRegistry, tensor: Tensor) -> None:
    """A __del__ that uses the registry again neither deadlocks nor eats an error on its way."""

    class Stubborn:
        def __call__(self, name: str, tensor: Tensor, layer_idx: int) -> None:
            raise Stop("mine")

        def __del__(self) -> None:
            registry.names()
            try:
                raise ValueError("inside")
            except ValueError:
                pass

    registry.register_hook("a", Stubborn())
    registry.register_hook("a", Stubborn())
    with pytest.raises(Stop):
        registry.call_hook("a", tensor)
    registry.clear()


def test_the_lock_is_released_by_every_call_that_reaches_a_callback(
    registry: HookRegistry, tensor: Tensor
) -> None:
    before = engine._callbacks_under_lock()  # type: ignore[attr-defined]
    registry.register_hook("a", Calls())
    registry.call_hook("a", tensor)
    assert engine._callbacks_under_lock() == before  # type: ignore[attr-defined]
