"""Captures: what points hold, kept without a callback; beside hooks, across passes, threads and models."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from infinilm import HookRegistry, LlamaForCausalLM, Tensor, current_step
from infinilm.engine import live_objects
from tiny import random_state, tiny_config

IDS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def loaded() -> LlamaForCausalLM:
    config = tiny_config()
    model = LlamaForCausalLM(config)
    model.load_state_dict(random_state(config))
    return model


@pytest.fixture
def registry(loaded: LlamaForCausalLM) -> HookRegistry:
    registry = HookRegistry()
    loaded.set_hook_registry(registry)
    return registry


def test_keeps_what_a_hook_sees(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    """Every point, in the order of execution, with the same names, layers, shapes and rows."""
    seen: list[tuple[str, int, np.ndarray, str]] = []
    registry.register_hook("*", lambda name, tensor, layer: seen.append(
        (name, layer, tensor.numpy().copy(), repr(current_step()))))  # fmt: skip
    capture = registry.capture("*")
    loaded.forward([IDS, IDS[::-1]])
    loaded.generate([IDS, [7]], max_new_tokens=3)
    assert capture.calls == len(capture) == len(seen) > 50
    for value, (name, layer, expected, step) in zip(capture, seen, strict=True):
        assert (value.name, value.layer_idx, repr(value.step)) == (name, layer, step)
        np.testing.assert_array_equal(value.tensor.numpy(), expected, err_msg=name)


def test_changes_nothing(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    plain = loaded.forward(IDS).numpy()
    with (
        registry.capture("layer#_*put"),
        registry.capture("layer#_mlp_*"),
        registry.capture("logits"),
    ):
        np.testing.assert_array_equal(loaded.forward(IDS).numpy(), plain)


def test_order_among_hooks(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    """A capture keeps what hooks before it have left; what they write later does not reach it."""
    before = registry.capture("layer0_output")

    def double(name: str, tensor: Tensor, layer: int) -> None:
        tensor.numpy()[...] *= 2

    registry.register_hook("layer0_output", double)
    after = registry.capture("layer0_output")  # the same name: does not replace the hook
    follower = registry.capture("layer1_input")
    loaded.forward(IDS)
    assert registry.names() == ["layer0_output"] * 3 + ["layer1_input"]
    (first,), (second,), (third,) = before["layer0_output"], after["layer0_output"], follower
    np.testing.assert_array_equal(second.numpy(), 2 * first.numpy())
    np.testing.assert_array_equal(second.numpy(), third.tensor.numpy())
    second.numpy()[...] = 0  # another's values at another point stay
    assert np.abs(third.tensor.numpy()).max() > 0


def test_by_name(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    with registry.capture("layer#_mlp") as kept, registry.capture("layer1_mlp_output") as alias:
        for ids in (IDS, [1, 2]):
            loaded.forward(ids)
    assert [tensor.shape[0] for tensor in kept["layer1_mlp"]] == [5, 2]
    assert [value.name for value in alias] == ["layer1_mlp_output"] * 2
    np.testing.assert_array_equal(alias["layer1_mlp_output"][1], kept["layer1_mlp"][1])
    with pytest.raises(KeyError, match="nothing captured of 'layer1_mlq'; there is 'layer0_mlp', "):
        kept["layer1_mlq"]
    loaded.forward(IDS)
    assert len(kept) == 4
    assert not kept.active


def test_take_lets_go(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    capture = registry.capture("layer#_*")

    def alive_after_a_while() -> dict[str, int]:
        for i in range(1, 11):
            loaded.forward(IDS)
            assert len(capture.take()) == capture.calls / i > 20
            assert len(capture) == 0
        gc.collect()
        return dict(live_objects())

    alive = alive_after_a_while()
    capture = registry.capture("layer#_*")
    assert alive_after_a_while() == alive


def test_ends_when_nobody_holds_it(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    registry.capture("*")
    gc.collect()
    assert not registry.has_hooks()
    capture = registry.capture("logits")
    registry.clear()
    assert not capture.active
    loaded.forward(IDS)
    assert len(capture) == 0
    del registry
    loaded.set_hook_registry(None)
    gc.collect()
    capture.remove()  # after its registry


def test_arguments(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    with pytest.raises(ValueError, match="a capture needs a name"):
        registry.capture("")
    with pytest.raises(TypeError, match="name"):
        registry.capture(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="to_cpu"):
        registry.capture("logits", to_cpu=1)  # type: ignore[arg-type]
    typo = registry.capture("layer0_mpl")
    with pytest.warns(UserWarning, match='"layer0_mpl" matches no hook point.*"layer0_mlp"'):
        loaded.forward(IDS)
    assert len(typo) == 0


def test_of_tensors_that_are_not_the_model_s(registry: HookRegistry) -> None:
    """Whoever calls hooks may write to the tensor afterwards."""
    mine = np.arange(3.0, dtype=np.float32)
    with registry.capture("mine") as capture:
        registry.call_hook("mine", Tensor.from_numpy(mine), 4)
    mine[...] = 0
    (value,) = capture
    assert (value.layer_idx, value.tensor.numpy().tolist()) == (4, [0, 1, 2])
    assert value.step.sequences == []


def test_prefix(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    loaded.set_hook_registry(registry, "ours")
    with registry.capture("layer0_mlp") as bare, registry.capture("ours_layer#_mlp") as full:
        loaded.forward(IDS)
    assert [value.name for value in bare] == ["ours_layer0_mlp"]
    assert [value.name for value in full] == ["ours_layer0_mlp", "ours_layer1_mlp"]


def test_threads_share_one(loaded: LlamaForCausalLM, registry: HookRegistry) -> None:
    """Each value belongs to the pass that it says; reading and removing at the same time is safe."""
    capture = registry.capture("embed_tokens")

    def work(token: int) -> None:
        for _ in range(20):
            with registry.capture("layer#_mlp") as own:
                loaded.forward([token] * token)
            assert len(own) >= 2
            capture.values()

    threads = [threading.Thread(target=work, args=(token,)) for token in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = capture.take()
    assert len(values) == 60 == len({value.step.step for value in values})
    for value in values:
        assert value.tensor.shape[0] == value.step.sequences[0].rows


def test_a_pass_that_is_stopped_leaves_what_it_came_to(
    loaded: LlamaForCausalLM, registry: HookRegistry
) -> None:
    seen: list[int] = []

    def enough(name: str, tensor: Tensor, layer: int) -> None:
        seen.append(len(capture))  # a pass is seen when it has ended
        raise ArithmeticError("mine")

    capture = registry.capture("layer#_input")
    handle = registry.register_hook("layer1_input", enough)
    with pytest.raises(ArithmeticError, match="mine"):
        loaded.forward(IDS)
    assert seen == [0]
    assert [value.name for value in capture.take()] == ["layer0_input", "layer1_input"]
    handle.remove()
    loaded.forward(IDS)
    assert len(capture) == 2


def test_a_hook_s_later_edits_stay_its_own(
    loaded: LlamaForCausalLM, registry: HookRegistry
) -> None:
    kept: list[Tensor] = []
    registry.register_hook("layer#_mlp", lambda name, tensor, layer: kept.append(tensor))
    captures = [registry.capture("layer#_mlp"), registry.capture("layer#_mlp", to_cpu=True)]
    loaded.forward(IDS)
    expected = [tensor.numpy().copy() for tensor in kept]
    for tensor in kept:
        tensor.numpy()[...] = 0
    for capture in captures:
        for value, reference in zip(capture, expected, strict=True):
            np.testing.assert_array_equal(value.tensor, reference)
