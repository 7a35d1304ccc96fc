"""Hooks in a model: edits, what is kept, changes and runs from within a callback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hooked import BATCH, IDS, edit, names_of, run
from infinilm import HookRegistry, Tensor, engine
from tiny import tiny_model


def test_writing_edits_what_follows(model: engine.LlamaForCausalLM, registry: HookRegistry) -> None:
    """Ablating the MLP's output is what a down projection of zeros does, at every point on the way."""
    plain = run(model)
    state = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    state["model.layers.0.mlp.down_proj.weight"][:] = 0
    ablated = engine.LlamaForCausalLM(model.config())
    ablated.load_state_dict(state)
    expected = run(ablated)
    assert not np.allclose(expected, plain)
    for name in ("layer0_mlp", "layer0_mlp_intermediate", "layer0_mlp_up_proj"):
        registry.clear()
        registry.register_hook(name, edit(lambda x: 0))
        np.testing.assert_allclose(run(model), expected, rtol=0, atol=1e-5)


def test_the_residual_stream_is_the_residual_stream(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    """Steering at the end of one layer is the same as steering at the start of the next."""
    direction = np.random.default_rng(0).normal(size=32).astype(np.float32)
    results = []
    for name in ("layer0_output", "layer1_input"):
        registry.clear()
        registry.register_hook(name, edit(lambda x: x + direction))
        results.append(run(model))
    assert np.array_equal(*results)
    assert not np.allclose(results[0], run(tiny_model()))


def test_attention_weights_can_be_edited(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    flat: list[np.ndarray[Any, Any]] = []
    registry.register_hook("layer0_attention_weights", edit(lambda x: 0))
    registry.register_hook(
        "layer0_attention_attn_flat_before_o_proj", lambda n, t, i: flat.append(t.numpy().copy())
    )
    run(model)
    assert not flat[0].any()
    registry.register_hook("layer0_attention_weights", lambda n, t, i: flat.append(t.numpy()))
    run(model)
    weights = flat[1]
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.all(weights[:, np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]] == 0)


def test_masking_scores_moves_the_weights(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    def only_itself(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert np.all(np.isneginf(scores[:, 0, 1:]))
        return np.where(np.eye(5, dtype=bool), scores, -np.inf)

    weights: list[np.ndarray[Any, Any]] = []
    registry.register_hook("layer1_attention_scores", edit(only_itself))
    registry.register_hook("layer1_attention_weights", lambda n, t, i: weights.append(t.numpy()))
    run(model)
    assert np.array_equal(weights[0], np.broadcast_to(np.eye(5, dtype=np.float32), (4, 5, 5)))


def test_what_is_kept_stays_as_it_was(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    kept: list[tuple[str, Tensor, np.ndarray[Any, Any]]] = []
    first = run(model)
    registry.register_hook("*", lambda n, t, i: kept.append((n, t, t.numpy().copy())))
    run(model)
    run(model, BATCH)
    registry.clear()
    run(model, IDS[::-1].copy())
    for name, tensor, values in kept:
        assert np.array_equal(tensor.numpy(), values), name
    assert len(kept) == 2 * len(names_of(model))
    assert np.array_equal(run(model), first)


def test_views_keep_as_tensors_do(model: engine.LlamaForCausalLM, registry: HookRegistry) -> None:
    kept: list[tuple[Any, Any]] = []

    def keep(name: str, tensor: Tensor, layer_idx: int) -> None:
        kept.append((tensor.numpy()[..., :2], tensor.numpy()[..., :2].copy()))
        kept.append((np.from_dlpack(tensor), tensor.numpy().copy()))

    registry.register_hook("layer*", keep)
    run(model)
    run(model)
    assert all(np.array_equal(view, values) for view, values in kept)


def test_an_edit_does_not_reach_back_into_what_is_kept(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    kept: list[tuple[Tensor, np.ndarray[Any, Any]]] = []
    registry.register_hook("layer0_output", lambda n, t, i: kept.append((t, t.numpy().copy())))
    registry.register_hook("layer1_input", edit(lambda x: 0))
    edited = run(model)
    assert np.array_equal(kept[0][0].numpy(), kept[0][1])
    assert kept[0][1].any()
    registry.clear()
    registry.register_hook("layer1_input", edit(lambda x: 0))
    assert np.array_equal(run(model), edited)


def test_editing_a_kept_tensor_later_changes_nothing(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    kept: list[Tensor] = []
    registry.register_hook("layer*", lambda n, t, i: kept.append(t))
    plain = run(model)
    for tensor in kept:
        tensor.numpy()[...] = np.nan
    kept.clear()
    assert np.array_equal(run(model), plain)


def test_callbacks_of_one_point_share_one_tensor(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    seen: list[float] = []
    registry.register_hook("layer0_output", edit(lambda x: 3))
    registry.register_hook("*0_output", lambda n, t, i: seen.append(float(t.numpy().min())))
    registry.register_hook("layer1_input", lambda n, t, i: seen.append(float(t.numpy().max())))
    run(model)
    assert seen == [3, 3]


def test_changes_inside_a_callback_count_from_the_next_point_on(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    seen: list[str] = []

    def start(name: str, tensor: Tensor, layer_idx: int) -> None:
        registry.register_hook("layer1_*put", lambda n, t, i: seen.append(n))
        handle.remove()
        registry.register_hook("final_norm", lambda n, t, i: registry.clear())

    handle = registry.register_hook("layer#_mlp", lambda n, t, i: seen.append(n))
    registry.register_hook("layer0_output", start)
    registry.register_hook("logits", lambda n, t, i: seen.append(n))
    run(model)
    assert seen == ["layer0_mlp", "layer1_input", "layer1_attention_output", "layer1_output"]


def test_a_callback_may_run_the_model(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    plain = run(model)
    inner: list[np.ndarray[Any, Any]] = []

    def nested(name: str, tensor: Tensor, layer_idx: int) -> None:
        if not inner:
            inner.append(np.zeros(0))
            inner[0] = run(model)

    registry.register_hook("layer1_input", nested)
    cache = model.new_cache()
    outer = run(model, cache=cache)
    assert np.array_equal(inner[0], plain)
    np.testing.assert_allclose(outer, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    assert cache.length() == 5


def test_a_callback_cannot_continue_the_cache_it_was_called_from(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    cache, other = model.new_cache(), model.new_cache()
    errors: list[Exception] = []

    def nested(name: str, tensor: Tensor, layer_idx: int) -> None:
        handle.remove()
        run(model, cache=other)
        with pytest.raises(RuntimeError) as caught:
            run(model, cache=cache)
        errors.append(caught.value)

    handle = registry.register_hook("layer1_input", nested)
    run(model, cache=cache)
    assert "cache" in str(errors[0])
    assert (cache.length(), other.length()) == (5, 5)


def test_current_step(model: engine.LlamaForCausalLM, registry: HookRegistry) -> None:
    steps: list[engine.StepInfo] = []
    registry.register_hook("layer0_mlp", lambda n, t, i: steps.append(engine.current_step()))
    run(model)
    cache = model.new_cache(2)
    model.forward_packed([[1, 2, 3], [4]], [1, 0], cache)
    model.forward_packed([[5]], [1], cache)
    found = [[(s.row_begin, s.rows, s.position, s.slot) for s in x.sequences] for x in steps]
    assert found == [[(0, 5, 0, 0)], [(0, 3, 0, 1), (3, 1, 0, 0)], [(0, 1, 3, 1)]]
    assert [step.step - steps[0].step for step in steps] == [0, 1, 2]
    assert "sequences=[StepSequence(" in repr(steps[0])
    with pytest.raises(RuntimeError, match="hook"):
        engine.current_step()
