"""Quantised weights, made while loading: against NumPy, and models against the weights that theirs stand for."""

from __future__ import annotations

from typing import Any

import infinilm
import numpy as np
import pytest
import reference
from infinilm import engine, operations
from infinilm.cli import main
from instruction_sets import run_again
from operation_cases import LINEAR, Array, LinearCase, numbers
from reference import EPS

FORMATS = [("int8", 0), ("int8", 32), ("int8", 128), ("int4", 32), ("int4", 96), ("int4", 128)]
HALF = 2.0**-11  # the relative error of a scale, which is kept as float16
SAMPLE = infinilm.sample_model()


def packed(
    weights: list[Array], compute: str, name: str, group: int, activations: str = ""
) -> operations.PackedLinear:
    rounding = engine.Quantization(name, group, activations)
    return operations.PackedLinear(weights, compute, quantization=rounding)


def by_groups(x: Array, size: int) -> Array:
    """[rows, groups, size], filled up with zeros."""
    rows, columns = x.shape
    count = -(-columns // size)
    whole = np.zeros((rows, count * size), x.dtype)
    whole[:, :columns] = x
    return whole.reshape(rows, count, size)


def run_of(name: str, group: int, depth: int) -> int:
    """How many columns of x share a scale where it is made integers."""
    multiple = 128 if depth % 128 == 0 or depth > 1024 else 32
    by_rows = -(-depth // multiple) * multiple
    size = group if 0 < group < depth else by_rows
    return 128 if size % 128 == 0 else 32


def largest_of_run(x: Array, run: int) -> Array:
    """For each entry of x the largest magnitude in its run."""
    groups = np.abs(by_groups(x, run))
    largest = np.broadcast_to(groups.max(-1, keepdims=True), groups.shape)
    return largest.reshape(len(x), -1)[:, : x.shape[1]]


@pytest.mark.parametrize(("name", "group"), FORMATS)
@pytest.mark.parametrize("depth", [1, 31, 32, 200, 513])
def test_rounding(name: str, group: int, depth: int) -> None:
    w = numbers(0, 70, depth) * np.exp(numbers(1, 70, 1))
    found = packed([w], "float32", name, group).unpack(0).numpy()
    assert found.dtype == np.float32
    groups, error = by_groups(w, group or depth), by_groups(np.abs(found - w), group or depth)
    largest = np.abs(groups).max(-1)
    if name == "int8":  # half a step, and what the scale was rounded by, 127 times
        assert np.all(error.max(-1) <= largest / 127 * (0.5 + 127 * HALF + 1e-3))
        return
    # llama.cpp's Q4_0 makes the extreme code 0 of 16; of several scales the best one cannot be worse.
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
    scale = (extreme / -8).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(np.floor(groups * inverse + 8.5), 0, 15)
    plain = ((codes - 8) * scale - groups) ** 2
    assert np.all((error**2).sum(-1) <= plain.sum(-1) * 1.0001 + 1e-12)


def test_what_is_representable_is_kept_exactly() -> None:
    rng = np.random.default_rng(0)
    scale = np.exp2(rng.integers(-8, 3, (40, 1))).astype(np.float32)
    eight = rng.integers(-127, 128, (40, 64)).astype(np.float32)
    eight[:, 0] = 127
    four = rng.integers(-8, 8, (40, 64)).astype(np.float32)
    four[:, ::32] = -8
    for name, codes in (("int8", eight), ("int4", four)):
        found = packed([codes * scale], "float32", name, 32 if name == "int4" else 0).unpack(0)
        np.testing.assert_array_equal(found.numpy(), codes * scale)


def test_weights_that_are_not_finite_or_too_small() -> None:
    w = numbers(0, 5, 64)
    w[1, 3], w[2, 40], w[3], w[4] = np.nan, np.inf, 0, 1e-30
    for name in ("int8", "int4"):
        found = packed([w], "float32", name, 32).unpack(0).numpy()
        assert np.isnan(found[1, :32]).all()
        assert np.isnan(found[2, 32:]).all()
        assert np.isfinite(found[1, 32:]).all()
        assert not found[3].any()
        assert np.abs(found[4]).max() <= 2.0**-24


def rounded_to_int8(x: Array, run: int) -> Array:
    groups = by_groups(x, run)
    largest = np.abs(groups).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest != 0)
    rounded = np.rint(groups * inverse) * (largest / np.float32(127))
    return rounded.reshape(len(x), -1)[:, : x.shape[1]]


@pytest.mark.parametrize(("name", "group"), FORMATS)
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_products(case: LinearCase, name: str, group: int) -> None:
    x = numbers(0, case.rows, case.depth)
    weights = [numbers(1 + i, n, case.depth) for i, n in enumerate(case.outputs)]
    bias = [numbers(50 + i, n) for i, n in enumerate(case.outputs)]
    run = run_of(name, group, case.depth)
    largest = largest_of_run(x, run)
    for compute, activations in (("float32", ""), ("bfloat16", ""), ("float32", "int8")):
        layer = packed(weights, compute, name, group, activations)
        for part, y in enumerate(layer.apply(x, bias)):
            w = layer.unpack(part).numpy()
            used = rounded_to_int8(x, run) if activations else x
            expected = reference.linear(used, w, bias[part])
            bound = 4 * EPS * (reference.linear_magnitude(largest, w) + np.abs(bias[part]))
            if compute == "bfloat16":  # x and w rounded to it, or x to 16 bits of its run's range
                bound += 2.0**-8 * reference.linear_magnitude(x, w)
                bound += 2.0**-15 * reference.linear_magnitude(largest, w)
            assert np.all(np.abs(y.numpy() - expected) <= bound + reference.TINY)


@pytest.mark.parametrize(("name", "group"), FORMATS)
def test_few_rows_count_sixteen_bits_of_x(name: str, group: int) -> None:
    """The integer kernels for bfloat16 are closer than bfloat16."""
    if infinilm.cpu_level() not in ("avx512bf16", "amx"):
        pytest.skip("no integer kernels on this level")
    x, w = numbers(0, 5, 300), numbers(1, 70, 300)
    layer = packed([w], "bfloat16", name, group)
    w = layer.unpack(0).numpy()
    error = np.abs(layer.apply(x, [])[0].numpy() - reference.linear(x, w))
    bound = reference.linear_magnitude(largest_of_run(x, run_of(name, group, 300)), w)
    assert np.all(error <= 2.0**-15 * bound)


@pytest.mark.parametrize("activations", ["", "int8"])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_fused_is_the_same_as_apart(name: str, activations: str) -> None:
    for rows in (1, 7, 130):
        x, residual = numbers(0, rows, 130), numbers(9, rows, 100)
        bias = [numbers(5, 100), numbers(6, 100)]
        weights = [numbers(1, 100, 130), numbers(2, 100, 130)]
        both = packed(weights, "bfloat16", name, 0, activations)
        gate, up = both.apply(x, bias)
        expected = operations.act_mul(gate, up, "silu").numpy()
        np.testing.assert_array_equal(both.apply_act_mul(x, bias, "silu").numpy(), expected)
        one = packed(weights[:1], "bfloat16", name, 0, activations)
        expected = operations.add(one.apply(x, bias[:1])[0], residual).numpy()
        np.testing.assert_array_equal(one.apply_residual(x, bias[:1], residual).numpy(), expected)


@pytest.mark.parametrize("activations", ["", "int8"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_rows_and_threads_do_not_matter(compute: str, activations: str) -> None:
    """Within one way of multiplying: up to 16 rows everywhere."""
    x, w = numbers(0, 16, 260), numbers(1, 150, 260)
    layer = packed([w], compute, "int4", 32, activations)
    threads = infinilm.num_threads()
    try:
        infinilm.set_num_threads(1)
        together = layer.apply(x, [])[0].numpy()
        infinilm.set_num_threads(3)
        np.testing.assert_array_equal(layer.apply(x, [])[0].numpy(), together)
    finally:
        infinilm.set_num_threads(threads)
    for row in range(16):
        np.testing.assert_array_equal(
            layer.apply(x[row : row + 1], [])[0].numpy()[0], together[row]
        )


def test_inputs_that_are_not_finite() -> None:
    w = numbers(1, 70, 200)
    x = numbers(0, 4, 200)
    x[1, 5], x[2, 150] = np.nan, np.inf
    for activations in ("", "int8"):
        for rows in (x, np.tile(x, (40, 1))):
            y = packed([w], "float32", "int8", 0, activations).apply(rows, [])[0].numpy()
            assert np.isfinite(y[[0, 3]]).all()
            assert not np.isfinite(y[[1, 2]]).any()


# Whole models


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "group"), [("int8", None), ("int4", None), ("int4", 128)])
def test_a_model_computes_with_what_its_weights_stand_for(
    name: str, group: int | None, dtype: str
) -> None:
    model = infinilm.LlamaForCausalLM.from_pretrained(
        SAMPLE, dtype=dtype, quantization=name, group_size=group
    )
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    plain = infinilm.LlamaForCausalLM(model.config)
    plain.load_state_dict(state)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 150)
    expected = plain.forward(ids).numpy()
    close = (2e-5 if dtype == "float32" else 2e-2) * np.abs(expected).max()
    assert np.abs(model.forward(ids).numpy() - expected).max() <= close
    cache = model.new_cache()
    steps = [model.forward(ids[i : i + 1], cache).numpy()[0] for i in range(20)]
    assert np.abs(np.array(steps) - expected[:20]).max() <= close
    if dtype == "float32":  # int8 is about as near to the weights as bfloat16
        unrounded = infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, dtype=dtype)
        assert np.abs(unrounded.forward(ids).numpy() - expected).max() > close


def test_a_quantised_model() -> None:
    plain = infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, dtype="bfloat16")
    assert not plain.quantization
    assert str(plain.quantization) == "none"
    sizes = [plain.nbytes]
    for name, text in (("int8", "int8 by rows"), ("int4", "int4 in groups of 32")):
        calls: list[tuple[int, int]] = []
        model = infinilm.LlamaForCausalLM.from_pretrained(
            SAMPLE,
            dtype="bfloat16",
            quantization=name,
            progress=lambda done, total, calls=calls: calls.append((done, total)),
        )
        assert str(model.quantization) == text
        assert model.quantization
        assert model.quantization.bits == int(name[3:])
        assert repr(text) in repr(model)
        sizes.append(model.nbytes)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        assert calls[-1][0] == calls[-1][1]
        assert model.generate("ROMEO:", max_new_tokens=5, temperature=0).startswith("ROMEO:")
    assert sizes[0] > 1.9 * sizes[1]
    assert sizes[1] > 1.5 * sizes[2]  # the embedding stays int8


def test_hooks_see_and_edit_a_quantised_model() -> None:
    llm = infinilm.load(SAMPLE, quantization="int4", activations="int8")
    registry = infinilm.HookRegistry()
    llm.model.set_hook_registry(registry)
    ids = list(range(1, 30))
    plain = llm.model.forward(ids).numpy().copy()
    seen: dict[str, Any] = {}
    registry.register_hook("*", lambda name, tensor, layer: seen.update({name: tensor}))
    hooked = llm.model.forward(ids).numpy()
    assert set(seen) == {point.name for point in llm.model.hook_points()}
    # Scores are shown, so that attention is computed from them, which sums in another order.
    np.testing.assert_allclose(hooked, plain, rtol=0, atol=2e-3 * np.abs(plain).max())
    registry.clear()

    def zero(name: str, tensor: Any, layer: int) -> None:
        tensor.numpy()[...] = 0

    registry.register_hook("layer0_mlp", zero)
    assert np.abs(llm.model.forward(ids).numpy() - plain).max() > 0.01
    registry.clear()
    np.testing.assert_array_equal(llm.model.forward(ids).numpy(), plain)


def test_a_state_dict_is_rounded_as_a_checkpoint_is() -> None:
    read = infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, quantization="int4", group_size=64)
    source = infinilm.LlamaForCausalLM.from_pretrained(SAMPLE)
    filled = infinilm.LlamaForCausalLM(source.config, quantization="int4", group_size=64)
    filled.load_state_dict(source.state_dict())
    assert filled.quantization == read.quantization != source.quantization
    np.testing.assert_array_equal(filled.forward([1, 2]).numpy(), read.forward([1, 2]).numpy())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quantization": "int5"}, 'quantization: expected "int8", "int4" or none, found "int5"'),
        ({"quantization": "int4", "group_size": 48}, "group_size: expected a multiple of 32"),
        ({"quantization": "int4", "group_size": 0}, "group_size: expected a multiple of 32"),
        ({"quantization": "int4", "activations": "int4"}, 'activations: expected "int8" or none'),
        ({"activations": "int8"}, "add quantization="),
        ({"group_size": 32}, "group_size: expected none without quantization"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, **options)


def test_options_of_wrong_types() -> None:
    for options in ({"quantization": 4}, {"quantization": "int4", "group_size": "32"}):
        with pytest.raises(TypeError):
            infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, **options)  # type: ignore[arg-type]
    with pytest.raises((ValueError, OverflowError)):
        infinilm.LlamaForCausalLM.from_pretrained(SAMPLE, quantization="int4", group_size=-32)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "ROMEO:", "--max-new-tokens", "3", "--seed", "1"]
    assert main([*arguments, "--quantization", "int4", "--group-size", "64"]) == 0
    assert capsys.readouterr().out.startswith("ROMEO:")
    assert main([*arguments, "--activations", "int8"]) == 1
    assert "quantization" in capsys.readouterr().err


@pytest.mark.parametrize("level", infinilm.available_cpu_levels())
def test_every_instruction_set_of_this_machine(level: str) -> None:
    run_again(level, __file__)
