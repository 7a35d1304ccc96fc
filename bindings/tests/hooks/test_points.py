"""Hooks in a model: which points there are, in what order, and by what names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hooked import BATCH, IDS, edit, names_of, run
from infinilm import HookRegistry, Tensor, engine
from tiny import tiny_model


def expected_shape(text: str, leading: tuple[int, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    shape: list[int] = []
    for term in re.findall(r"[^,\[\]]+", text):
        factors = [factor.strip() for factor in term.split("*")]
        if factors == ["T"]:
            shape.extend(leading)
        else:
            shape.append(int(np.prod([sizes[factor] for factor in factors])))
    return tuple(shape)


@pytest.mark.parametrize("ids", [IDS, BATCH], ids=["sequence", "batch"])
def test_every_point_fires_once_in_order_with_its_shape(
    model: engine.LlamaForCausalLM, registry: HookRegistry, ids: np.ndarray[Any, Any]
) -> None:
    seen: list[tuple[str, tuple[int, ...], int]] = []
    dtypes = set()

    def look(name: str, tensor: Tensor, layer_idx: int) -> None:
        seen.append((name, tensor.shape, layer_idx))
        dtypes.add(str(tensor.dtype))
        assert tensor.numpy().flags.writeable

    registry.register_hook("*", look)
    run(model, ids)
    config = model.config()
    sizes = {
        "H": config.hidden_size,
        "A": config.num_attention_heads,
        "K": config.num_key_value_heads,
        "D": config.head_dim,
        "I": config.intermediate_size,
        "V": config.vocab_size,
    }
    expected = []
    for point in model.hook_points():
        if point.name.endswith(("_scores", "_weights")):
            shape = (*ids.shape[:-1], sizes["A"], ids.shape[-1], ids.shape[-1])
        else:
            shape = expected_shape(point.shape, ids.shape, sizes)
        expected.append((point.name, shape, point.layer_idx))
    assert seen == expected
    assert dtypes == {"float32"}


def test_hook_points_come_from_the_config_alone(model: engine.LlamaForCausalLM) -> None:
    points = engine.hook_points(model.config())
    assert [point.name for point in points] == names_of(model)
    prefixed = engine.hook_points(model.config(), "p")
    assert [point.name for point in prefixed] == [f"p_{name}" for name in names_of(model)]
    by_name = {point.name: point for point in points}
    assert by_name["layer0_mlp"].aliases == ["layer0_mlp_output"]
    assert by_name["layer1_output"].layer_idx == 1
    assert by_name["logits"].layer_idx == -1
    assert "when=" in repr(by_name["logits"])


def test_reading_changes_nothing(model: engine.LlamaForCausalLM, registry: HookRegistry) -> None:
    plain = run(model)
    for name in names_of(model):
        if not name.endswith(("_scores", "_weights")):
            registry.register_hook(name, lambda n, t, i: t.numpy().sum())
    assert np.array_equal(run(model), plain)
    registry.register_hook("*", lambda n, t, i: None)  # scores as well: another order of summation
    np.testing.assert_allclose(run(model), plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    registry.clear()
    assert np.array_equal(run(model), plain)


def test_the_logits_point_is_the_result(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    kept: list[Tensor] = []
    registry.register_hook("logits", lambda n, t, i: kept.append(t))
    assert np.array_equal(run(model), kept[0].numpy())
    registry.register_hook("logits", edit(lambda x: 7))
    assert np.all(run(model) == 7)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("layer0_q_after_proj", "layer0_attention_q_after_proj"),
        ("layer1_k_after_proj", "layer1_attention_k_after_proj"),
        ("layer0_v_after_proj", "layer0_attention_v_after_proj"),
        ("layer0_attention_q_proj", "layer0_attention_q_after_proj"),
        ("layer0_attention_attention_output", "layer0_attention_attn_flat_before_o_proj"),
        ("layer1_after_attention_residual", "layer1_before_post_attention_layernorm"),
        ("layer0_mlp_output", "layer0_mlp"),
        ("layer0_after_mlp_residual", "layer0_output"),
    ],
)
def test_an_alias_hears_its_point_under_its_own_name(
    model: engine.LlamaForCausalLM, registry: HookRegistry, alias: str, name: str
) -> None:
    seen: dict[str, np.ndarray[Any, Any]] = {}

    def look(name: str, tensor: Tensor, layer_idx: int) -> None:
        assert name not in seen
        seen[name] = tensor.numpy().copy()

    registry.register_hook(alias, look)
    registry.register_hook(name, look)
    run(model)
    assert list(seen) == [alias, name]
    assert np.array_equal(seen[alias], seen[name])


def test_a_glob_never_hears_an_alias(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    seen: list[str] = []
    registry.register_hook("layer0_q*", lambda n, t, i: seen.append(n))
    with pytest.warns(UserWarning, match="alias"):
        run(model)
    assert seen == []


def test_a_prefix_names_the_model(registry: HookRegistry) -> None:
    left, right = tiny_model(seed=1), tiny_model(seed=2)
    left.set_hook_registry(registry, "left")
    right.set_hook_registry(registry, "right")
    seen: list[tuple[str, str]] = []
    for pattern in ("layer0_mlp", "left_layer0_mlp", "right_layer#_mlp"):
        registry.register_hook(pattern, lambda n, t, i, p=pattern: seen.append((p, n)))
    run(left)
    assert seen == [("layer0_mlp", "left_layer0_mlp"), ("left_layer0_mlp", "left_layer0_mlp")]
    seen.clear()
    run(right)
    assert seen == [
        ("layer0_mlp", "right_layer0_mlp"),
        ("right_layer#_mlp", "right_layer0_mlp"),
        ("right_layer#_mlp", "right_layer1_mlp"),
    ]
    seen.clear()
    registry.clear()
    registry.register_hook("*layer0_mlp", lambda n, t, i: seen.append(("*", n)))
    run(left)
    assert seen == [("*", "left_layer0_mlp")]  # once, though both names match


def test_an_alias_with_a_prefix(registry: HookRegistry, model: engine.LlamaForCausalLM) -> None:
    model.set_hook_registry(registry, "p")
    seen: list[str] = []
    registry.register_hook("layer0_mlp_output", lambda n, t, i: seen.append(n))
    registry.register_hook("p_layer1_mlp_output", lambda n, t, i: seen.append(n))
    run(model)
    assert seen == ["p_layer0_mlp_output", "p_layer1_mlp_output"]


def test_none_detaches(model: engine.LlamaForCausalLM, registry: HookRegistry) -> None:
    seen: list[str] = []
    registry.register_hook("logits", lambda n, t, i: seen.append(n))
    assert model.hook_registry() is registry
    model.set_hook_registry(None)
    assert model.hook_registry() is None
    run(model)
    assert seen == []
    with pytest.raises(TypeError):
        model.set_hook_registry("no registry")  # type: ignore[arg-type]
    assert model.hook_registry() is None


def test_a_name_that_matches_nothing_warns_once_at_the_caller_s_line(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    registry.register_hook("layer0_mpl", print)
    with pytest.warns(UserWarning, match=r"layer0_mpl.*layer0_mlp") as caught:
        model.forward(IDS)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    run(model)  # would be an error now, as warnings are here


def test_a_name_of_another_attached_model_is_no_mistake(registry: HookRegistry) -> None:
    small, large = tiny_model(num_hidden_layers=1), tiny_model(num_hidden_layers=3)
    small.set_hook_registry(registry)
    large.set_hook_registry(registry)
    registry.register_hook("layer2_mlp", lambda n, t, i: None)
    run(small)
    run(large)


def test_a_warning_made_an_error_leaves_forward(
    model: engine.LlamaForCausalLM, registry: HookRegistry
) -> None:
    registry.register_hook("layer7_mlp", print)
    with pytest.raises(UserWarning, match="layer7_mlp"):
        run(model)
    registry.clear()
    assert run(model).shape == (5, 61)
