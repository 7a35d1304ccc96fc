"""Hooks in a model: points and names, edits, what is kept, changes meanwhile, errors, Ctrl-C, threads, lifetime."""

from __future__ import annotations

import gc
import re
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from infinilm import GenerationConfig, HookRegistry, Tensor, engine
from tiny import tiny_model

IDS = np.array([3, 1, 4, 1, 5], np.int64)
BATCH = np.array([[3, 1, 4], [1, 5, 9]], np.int64)


@pytest.fixture
def model() -> engine.LlamaForCausalLM:
    return tiny_model()


@pytest.fixture
def registry(model: engine.LlamaForCausalLM) -> HookRegistry:
    registry = HookRegistry()
    model.set_hook_registry(registry)
    return registry


def run(model: engine.LlamaForCausalLM, ids: Any = IDS, **options: Any) -> np.ndarray[Any, Any]:
    return np.array(model.forward(ids, **options).numpy())


def names_of(model: engine.LlamaForCausalLM) -> list[str]:
    return [point.name for point in model.hook_points()]


def edit(function: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[str, Tensor, int], None]:
    """A callback that writes ``function(values)`` into the tensor."""

    def callback(name: str, tensor: Tensor, layer_idx: int) -> None:
        values = tensor.numpy()
        values[...] = function(values)

    return callback


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
        run(model)
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
