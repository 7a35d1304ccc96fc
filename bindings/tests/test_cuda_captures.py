"""What hooks keep of a CUDA device's values: they stay as they were, on the device, and on their way to the CPU.

Skipped, with the reason, where there is no such device.
"""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from device_pair import IDS, Array, assert_close, pair
from devices import IS_GUARDED, needs_cuda, needs_two
from infinilm import HookRegistry, LlamaForCausalLM, Tensor, engine, operations

pytestmark = [needs_cuda, pytest.mark.filterwarnings("ignore:cuBLASLt")]


def test_captures_stay_as_they_were() -> None:
    _, model = pair()
    plain = model.forward(IDS).numpy()
    kept: list[Tensor] = []
    then: list[Array] = []

    def keep(name: str, tensor: Tensor, layer: int) -> None:
        kept.append(tensor)
        then.append(tensor.numpy())

    registry = HookRegistry()
    registry.register_hook("layer#_*", keep)
    model.set_hook_registry(registry)
    model.forward(IDS)
    model.set_hook_registry(None)
    for _ in range(8):
        model.forward([5])
        assert np.array_equal(model.forward(IDS).numpy(), plain)
    for tensor, values in zip(kept, then, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), values)


def test_captures_that_leave_while_the_model_runs() -> None:
    """Every point of every layer, read when the model is gone; on the guarded plug-in they arrive only then."""
    kept: list[list[tuple[str, Tensor]]] = []
    for model in pair():
        seen: list[tuple[str, Tensor]] = []
        registry = HookRegistry()

        def keep(name: str, tensor: Tensor, layer: int, seen: Any = seen) -> None:
            seen.append((name, tensor.to("cpu", non_blocking=True)))
            if tensor.device == "cpu":  # there it is the memory itself
                seen[-1] = name, tensor.clone()

        registry.register_hook("*", keep)
        model.set_hook_registry(registry)
        cache = model.new_cache()
        for ids in (IDS, [7], [8]):
            model.forward(ids, cache)
        kept.append(seen)
        model.set_hook_registry(None)
        del registry, cache, model, keep
    gc.collect()
    expected, found = kept
    assert [n for n, _ in found] == [n for n, _ in expected]
    for (point, tensor), (_, reference) in zip(found, expected, strict=True):
        assert tensor.device == "cpu", point
        assert tensor.shape == reference.shape, point
        assert_close(tensor.numpy(), reference.numpy())


def test_a_capture_has_the_values_of_its_time() -> None:
    """Whoever edits afterwards: this hook, the next one, or the model, which gets the memory back."""
    _, model = pair()
    registry = HookRegistry()
    captured: list[tuple[Tensor, Array]] = []

    def capture(name: str, tensor: Tensor, layer: int) -> None:
        captured.append((tensor.to("cpu", non_blocking=True), tensor.numpy()))

    def capture_and_edit(name: str, tensor: Tensor, layer: int) -> None:
        capture(name, tensor, layer)
        tensor.copy_from(np.array(tensor.numpy()) + np.float32(1))

    registry.register_hook("layer#_output", capture_and_edit)
    registry.register_hook("layer#_*", capture)
    model.set_hook_registry(registry)
    for _ in range(3):
        model.forward(IDS)
    assert len(captured) > 20
    for tensor, values in captured:
        np.testing.assert_array_equal(tensor.numpy(), values)


LATER_READERS: dict[str, Any] = {
    "numpy": lambda t: t.numpy(),
    "asarray": lambda t: np.asarray(t),
    "array of another dtype": lambda t: np.array(t, np.float64),
    "dlpack": lambda t: np.from_dlpack(t),
    "dlpack, copied": lambda t: np.from_dlpack(Tensor.from_dlpack(t.__dlpack__(copy=True))),
    "from_dlpack": lambda t: Tensor.from_dlpack(t).numpy(),
    "array interface": lambda t: np.asarray(type("A", (), {
        "__array_interface__": t.__array_interface__, "owner": t})()),
    "tolist": lambda t: t.tolist(),
    "item": lambda t: np.reshape([t.reshape((6, 1)).numpy()[i].item() for i in range(6)], (2, 3)),
    "clone": lambda t: t.clone().numpy(),
    "contiguous": lambda t: t.contiguous().numpy(),
    "reshape": lambda t: t.reshape(6).numpy().reshape(2, 3),
    "to": lambda t: t.to("cpu").numpy(),
    "to the device": lambda t: t.to("cuda").numpy(),
    "pickle": lambda t: pickle.loads(pickle.dumps(t)).numpy(),
    "copy": lambda t: copy.copy(t).numpy(),
    "deepcopy": lambda t: copy.deepcopy(t).numpy(),
    "operation": lambda t: operations.add(t, np.zeros((2, 3), np.float32)).numpy(),
}  # fmt: skip


@pytest.mark.parametrize("name", LATER_READERS)
def test_every_way_of_reading_waits(name: str) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = Tensor.from_numpy(values).to("cuda")
    later = there.to("cpu", non_blocking=True)
    assert str(later) == "Tensor(shape=(2, 3), dtype=float32, device=cpu)"
    assert (later.nbytes, later.read_only, later.is_contiguous()) == (24, False, True)
    there.copy_from(values + 10)
    np.testing.assert_array_equal(LATER_READERS[name](later), values)
    np.testing.assert_array_equal(later.numpy(), values)


def test_every_way_of_giving_it_away_waits(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    there = Tensor.from_numpy(values).to("cuda")

    def later() -> Tensor:
        return there.to("cpu", non_blocking=True)

    for device in ("cpu", "cuda"):
        target = Tensor.from_numpy(np.zeros(6, np.float32)).to(device)
        target.copy_from(later())
        assert target.tolist() == values.tolist()
    written = later()
    written.copy_from(values + 1)
    assert written.tolist() == (values + 1).tolist()
    written = later()
    written.numpy()[:] = 5  # its own memory, writable
    assert written.tolist() == [5] * 6
    infinilm.save_safetensors(tmp_path / "t.safetensors", {"x": later()})
    assert infinilm.load_safetensors(tmp_path / "t.safetensors")["x"].tolist() == values.tolist()
    probabilities = engine.sampling_probabilities(later(), engine.GenerationConfig(top_k=1))
    assert probabilities.tolist() == [0, 0, 0, 0, 0, 1]


def test_weights_that_are_still_on_their_way() -> None:
    on_cpu, on_cuda = pair(attention_bias=True)
    state = {name: tensor.to("cuda") for name, tensor in on_cpu.state_dict().items()}
    for model in (on_cpu, on_cuda):
        expected = model.forward(IDS).numpy().copy()
        model.load_state_dict({n: t.to("cpu", non_blocking=True) for n, t in state.items()})
        np.testing.assert_array_equal(model.forward(IDS).numpy(), expected)


def test_captures_share_what_earlier_ones_have_left() -> None:
    """Of many sizes, dropped unread, read, and kept; nothing is left behind."""
    gc.collect()
    before = engine.live_objects()
    kept: list[tuple[Tensor, int]] = []
    there = [Tensor.from_numpy(np.zeros(1 << k, np.int32)).to("cuda") for k in (0, 3, 11, 18)]
    for i in range(80):
        tensor = there[i % len(there)]
        tensor.copy_from(np.full(tensor.shape, i, np.int32))
        kept.append((tensor.to("cpu", non_blocking=True), i))
        tensor.to("cpu", non_blocking=True)
        if i % 3 == 2:
            kept.pop(len(kept) // 2)
        if i % 7 == 0:
            assert (kept[-1][0].numpy() == kept[-1][1]).all()
    for tensor, value in kept:
        assert (tensor.numpy() == value).all()
    del kept, there, tensor
    gc.collect()
    assert engine.live_objects() == before


def test_threads_wait_for_one_capture() -> None:
    values = np.arange(1 << 16, dtype=np.float32)
    there = Tensor.from_numpy(values).to("cuda")
    for _ in range(20):
        later = there.to("cpu", non_blocking=True)
        found: list[Array] = []
        threads = [
            threading.Thread(target=lambda t=later, f=found: f.append(t.numpy().copy()))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        for array in found:
            np.testing.assert_array_equal(array, values)


@pytest.mark.skipif(not IS_GUARDED, reason="only there a copy takes as long as is asked for")
@pytest.mark.parametrize("name", ["numpy", "dlpack", "clone", "to the device", "operation"])
def test_other_threads_go_on_while_one_waits(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    there = Tensor.from_numpy(np.zeros((2, 3), np.float32)).to("cuda")
    later = there.to("cpu", non_blocking=True)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.002):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        monkeypatch.setenv("INFINILM_TEST_ARRIVAL_MS", "400")
        start = time.perf_counter()
        LATER_READERS[name](later)
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    assert end - start > 0.3
    assert sum(start < t < start + 0.3 for t in ticks) > 2  # one may come before the call


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "int64", "float64"])
def test_captures_of_other_dtypes(dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    later = Tensor.from_numpy(values).to("cuda").to("cpu", non_blocking=True)
    assert str(later.dtype) == dtype
    np.testing.assert_array_equal(later.numpy(), values)


def test_captures_of_unusual_tensors() -> None:
    for shape in [(), (0,), (0, 3), (1, 1, 1)]:
        values = np.ones(shape, np.float32)
        later = Tensor.from_numpy(values).to("cuda").to("cpu", non_blocking=True)
        assert later.device == "cpu"
        np.testing.assert_array_equal(later.numpy(), values)


def test_non_blocking_in_other_directions() -> None:
    host = Tensor.from_numpy(np.arange(3, dtype=np.float32))
    assert host.to("cpu", non_blocking=True).numpy().base is not None
    there = host.to("cuda", non_blocking=True)
    host.numpy()[:] = 7  # the device has what was there
    assert there.tolist() == [0, 1, 2]
    assert there.to("cuda:0", True).device == "cuda:0"
    with pytest.raises(TypeError, match="non_blocking must be a bool"):
        there.to("cpu", non_blocking=1)  # type: ignore[arg-type]


@needs_two
def test_non_blocking_between_devices() -> None:
    there = Tensor.from_numpy(np.arange(3, dtype=np.float32)).to("cuda:0")
    assert there.to("cuda:1", non_blocking=True).tolist() == [0, 1, 2]


def captured_values(model: LlamaForCausalLM, name: str, steps: int, to_cpu: bool) -> list[Any]:
    """What a capture keeps of a prompt and of steps after it: enough of them to be recorded."""
    registry = HookRegistry()
    model.set_hook_registry(registry)
    cache = model.new_cache(2)
    with registry.capture(name, to_cpu) as capture:
        for ids in ([IDS, IDS[::-1]], *[[[i], [i + 7]] for i in range(steps)]):
            model.forward(ids, cache)
    model.set_hook_registry(None)
    return capture.take()


# All points but scores and weights, which are no part of recorded steps; and with them.
@pytest.mark.parametrize("name", ["layer#_*put", "layer#_mlp*", "layer#_attention_[qkv]_*", "*norm",
                                  "logits", "embed_tokens", "layer1_attention_weights", "*"])  # fmt: skip
@pytest.mark.parametrize("to_cpu", [False, True])
def test_a_capture_keeps_what_the_cpu_s_keeps(name: str, to_cpu: bool) -> None:
    expected, found = (captured_values(model, name, 9, to_cpu) for model in pair(qk_norm=True))
    assert [(v.name, v.layer_idx, repr(v.step)) for v in found] == [
        (v.name, v.layer_idx, repr(v.step)) for v in expected
    ]
    for value, reference in zip(found, expected, strict=True):
        assert (value.tensor.device == "cpu") == to_cpu, value
        assert_close(value.tensor.numpy(), reference.tensor.numpy())


def test_captures_leave_recorded_steps_as_they_are() -> None:
    """The same bits as without, to the last step, whatever is captured in between; and what is kept stays."""
    _, model = pair()
    registry = HookRegistry()
    model.set_hook_registry(registry)

    def logits(*names: str) -> list[Array]:
        cache = model.new_cache()
        captures = [registry.capture(name) for name in names]
        found, then = [], []
        for i in range(12):
            found.append(model.forward([i], cache).numpy())
            then.append(
                [[v.tensor.numpy() for v in c.values()[i * len(c) // (i + 1) :]] for c in captures]
            )
        for k, capture in enumerate(captures):
            arrays = [array for step in then for array in step[k]]
            for value, array in zip(capture, arrays, strict=True):
                np.testing.assert_array_equal(value.tensor.numpy(), array)
        return found

    plain = logits()
    for names in (("layer#_output",), ("layer0_output", "layer1_mlp"), ("layer#_output",), ()):
        np.testing.assert_array_equal(logits(*names), plain)


def test_two_models_share_a_registry() -> None:
    registry = HookRegistry()
    models = [pair(num_hidden_layers=layers) for layers in (2, 3)]
    kept: list[list[Any]] = []
    for device in (0, 1):
        for name, of_both in zip(("a", "b"), models, strict=True):
            of_both[device].set_hook_registry(registry, name)
        with registry.capture("layer#_output") as both, registry.capture("b_layer2_mlp") as one:
            for i in range(7):
                for of_both in models:
                    of_both[device].forward([i])
        assert (len(both), len(one)) == (7 * 5, 7)
        kept.append([*both, *one])
        for of_both in models:
            of_both[device].set_hook_registry(None)
    for value, reference in zip(kept[1], kept[0], strict=True):
        assert value.name == reference.name
        assert_close(value.tensor.numpy(), reference.tensor.numpy())


def test_captures_of_a_batch_that_shrinks() -> None:
    prompts, lengths = [IDS, [7, 8], [9]], [3, 9, 6]
    kept: list[list[Any]] = []
    for model in pair():
        registry = HookRegistry()
        model.set_hook_registry(registry)
        cache = model.new_cache(3)
        with registry.capture("layer#_output", to_cpu=True) as capture:
            for i in range(max(lengths)):
                slots = [slot for slot in range(3) if lengths[slot] > i]
                ids = [prompts[slot] if i == 0 else [i + slot] for slot in slots]
                model._engine.forward_packed(ids, slots, cache)
        kept.append(capture.take())
    for value, reference in zip(kept[1], kept[0], strict=True):
        assert repr(value) == repr(reference)
        assert repr(value.step) == repr(reference.step)
        assert_close(value.tensor.numpy(), reference.tensor.numpy())


def test_hooks_and_captures_by_turns() -> None:
    """A hook that edits takes effect at the next step, and captures see what it leaves."""
    on_cpu, on_cuda = pair()
    results = []
    for model in (on_cpu, on_cuda):
        registry = HookRegistry()
        model.set_hook_registry(registry)
        capture = registry.capture("before_final_norm")
        cache = model.new_cache()

        def halve(name: str, tensor: Tensor, layer: int) -> None:
            tensor.copy_from(np.array(tensor.numpy()) / 2)

        for i in range(18):
            if i % 6 == 4:
                handle = registry.register_hook("layer1_output", halve)
            if i % 6 == 5:
                handle.remove()
            model.forward([i], cache)
        results.append([v.tensor.numpy() for v in capture])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


def test_a_capture_added_and_removed_by_another_thread() -> None:
    _, model = pair()
    registry = HookRegistry()
    model.set_hook_registry(registry)
    plain = [model.forward([5]).numpy()]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            with registry.capture("layer#_output"), registry.capture("layer#_mlp", to_cpu=True):
                time.sleep(0.001)
            registry.register_hook("layer0_mlp", lambda *_: None).remove()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert_close(model.forward([5]).numpy(), plain[0], 1e-6)
    finally:
        stop.set()
        thread.join()
