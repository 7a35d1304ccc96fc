"""Every operation against float64 NumPy, and bit for bit against itself done another way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import infinilm
import numpy as np
import pytest
import reference
from devices import DEVICES
from infinilm import operations
from instruction_sets import run_again
from operation_cases import (
    ATTENTION,
    LINEAR,
    TYPES,
    Array,
    AttentionCase,
    LinearCase,
    numbers,
    rounded,
    stored,
)
from reference import EPS

KV_DTYPES = ["float32", "bfloat16", "int8"]
ACTIVATIONS = ["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    threads = infinilm.num_threads()
    yield
    infinilm.set_num_threads(threads)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_within(found: Array, expected: Array, bound: Array) -> None:
    assert found.shape == expected.shape
    excess = np.abs(found - expected) - bound
    # A comparison with NaN is false.
    worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    assert np.all(excess <= 0), f"at {worst}: {found[worst]} != {expected[worst]}"


def assert_same_bits(found: Any, expected: Any) -> None:
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes(), f"{np.sum(found != expected)} differ"


class Linear:
    """The arrays of a case, and its weight in the engine's layout."""

    def __init__(
        self, case: LinearCase, stored_as: str, compute: str, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.x = numbers(seed, case.rows, case.depth)
        self.weights = [
            stored(numbers(seed + 1 + i, n, case.depth), stored_as)
            for i, n in enumerate(case.outputs)
        ]
        self.bias = [numbers(seed + 50 + i, n) for i, n in enumerate(case.outputs)]
        self.residual = numbers(seed + 99, case.rows, case.outputs[0])
        self.packed = operations.PackedLinear(self.weights, compute, device)
        self.compute = compute

    def apply(self, x: Array, bias: bool = True) -> list[Array]:
        return [y.numpy() for y in self.packed.apply(x, self.bias if bias else [])]


@pytest.mark.parametrize(("stored_as", "compute"), TYPES)
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear(case: LinearCase, stored_as: str, compute: str, device: str) -> None:
    layer = Linear(case, stored_as, compute, device=device)
    for with_bias in (False, True):
        found = layer.apply(layer.x, with_bias)
        for y, weight, bias in zip(found, layer.weights, layer.bias, strict=True):
            x, w = rounded(layer.x, compute), rounded(weight, compute)
            b = bias if with_bias else np.zeros_like(bias)
            expected = reference.linear(x, w, b)
            bound = 4 * EPS * (reference.linear_magnitude(x, w) + np.abs(b)) + reference.TINY
            assert_within(y, expected, bound)


@pytest.mark.parametrize(("stored_as", "compute"), TYPES)
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_rows_do_not_feel_each_other(case: LinearCase, stored_as: str, compute: str) -> None:
    layer = Linear(case, stored_as, compute)
    together = layer.apply(layer.x)
    middle = slice(case.rows // 3, case.rows // 3 + max(1, case.rows // 2))
    for found, whole in zip(layer.apply(layer.x[middle]), together, strict=True):
        assert_same_bits(found, whole[middle])
    for row in {0, case.rows // 2, case.rows - 1}:
        for found, whole in zip(layer.apply(layer.x[row : row + 1]), together, strict=True):
            assert_same_bits(found, whole[row : row + 1])


@pytest.mark.parametrize(("stored_as", "compute"), TYPES)
@pytest.mark.parametrize("case", LINEAR[2::3], ids=str)
def test_linear_with_any_number_of_threads(case: LinearCase, stored_as: str, compute: str) -> None:
    layer = Linear(case, stored_as, compute)
    infinilm.set_num_threads(1)
    alone = layer.apply(layer.x)
    for threads in (2, 7):
        infinilm.set_num_threads(threads)
        for found, expected in zip(layer.apply(layer.x), alone, strict=True):
            assert_same_bits(found, expected)


@pytest.mark.parametrize(("stored_as", "compute"), TYPES)
@pytest.mark.parametrize("case", [c for c in LINEAR if len(c.outputs) == 1], ids=str)
def test_fused_residual(case: LinearCase, stored_as: str, compute: str, device: str) -> None:
    layer = Linear(case, stored_as, compute, device=device)
    for bias in ([], layer.bias):
        fused = layer.packed.apply_residual(layer.x, bias, layer.residual).numpy()
        apart = operations.add(layer.packed.apply(layer.x, bias)[0], layer.residual, device).numpy()
        if device == "cpu":
            assert_same_bits(fused, apart)
        x, w = rounded(layer.x, compute), rounded(layer.weights[0], compute)
        magnitude = reference.linear_magnitude(x, w) + np.abs(layer.residual) + 4
        assert_within(fused, apart, 8 * EPS * magnitude)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize(("stored_as", "compute"), TYPES)
@pytest.mark.parametrize("shape", [(1, 64, 100), (2, 17, 16), (7, 300, 33), (100, 40, 5)], ids=str)
def test_fused_activation(
    shape: tuple[int, int, int], stored_as: str, compute: str, act: str, device: str
) -> None:
    rows, depth, outputs = shape
    layer = Linear(LinearCase(rows, depth, (outputs, outputs)), stored_as, compute, device=device)
    for bias in ([], layer.bias):
        gate, up = layer.packed.apply(layer.x, bias)
        fused = layer.packed.apply_act_mul(layer.x, bias, act).numpy()
        apart = operations.act_mul(gate, up, act, device).numpy()
        if device == "cpu":
            assert_same_bits(fused, apart)
        # A product's error goes through the other factor, and through a slope of at most 1.2.
        error = (
            8
            * EPS
            * reference.linear_magnitude(
                *[rounded(a, compute) for a in (layer.x, layer.weights[0])]
            )
        )
        other = (
            8
            * EPS
            * reference.linear_magnitude(
                *[rounded(a, compute) for a in (layer.x, layer.weights[1])]
            )
        )
        size = np.abs(gate.numpy()) + np.abs(up.numpy()) + 4
        assert_within(fused, apart, 2 * (error + other) * size)


@pytest.mark.parametrize("case", LINEAR, ids=str)
@pytest.mark.parametrize("stored_as", ["float32", "float16", "bfloat16"])
def test_unpack_gives_the_stored_rows_back(case: LinearCase, stored_as: str, device: str) -> None:
    layer = Linear(case, stored_as, "float32", device=device)
    for part, weight in enumerate(layer.weights):
        assert_same_bits(layer.packed.unpack(part).numpy(), weight)
    rounded_layer = Linear(case, stored_as, "bfloat16", device=device)
    for part, weight in enumerate(rounded_layer.weights):
        expected = stored(weight.astype(np.float32), "bfloat16")
        assert_same_bits(rounded_layer.packed.unpack(part).numpy(), expected)


def test_half_precision_is_widened_exactly(device: str) -> None:
    """Every float16 and every bfloat16, denormals, infinities and NaN included."""
    patterns = np.arange(65536, dtype=np.uint16)
    for dtype in ("float16", "bfloat16"):
        table = patterns.view(stored(np.zeros(1), dtype).dtype).reshape(-1, 16)
        found = operations.embed(list(range(len(table))), table, device).numpy()
        with np.errstate(invalid="ignore"):
            expected = table.astype(np.float32)
        np.testing.assert_array_equal(found, expected)
        finite = np.where(np.isfinite(expected), expected, np.float32(0))
        packed = operations.PackedLinear([stored(finite, dtype)], "float32", device)
        assert_same_bits(
            packed.apply(np.eye(16, dtype=np.float32), [])[0].numpy() + 0.0, finite.T + 0.0
        )


def test_weights_of_every_size_are_rounded_to_bfloat16_as_numpy_does(device: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(3).integers(0, 2**32, (64, 65), dtype=np.uint32)
    bits[0, :4] = [0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00000001]
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.where(np.isnan(bits.view(np.float32)), np.float32(1), bits.view(np.float32))
        expected = values.astype(ml_dtypes.bfloat16)
    found = operations.PackedLinear([values], "bfloat16", device).unpack(0).numpy()
    assert_same_bits(found.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("stored_as", ["float32", "float16", "bfloat16"])
def test_embed(stored_as: str, device: str) -> None:
    table = stored(numbers(0, 70, 33), stored_as)
    ids = [69, 0, 0, 15, 16, 17, 64]
    found = operations.embed(ids, table, device).numpy()
    assert_same_bits(found, table[ids].astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4096), (3, 7), (5, 64), (300, 129)], ids=str)
@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_rms_norm(shape: tuple[int, int], eps: float, device: str) -> None:
    x, weight = numbers(1, *shape) * 3, numbers(2, shape[1])
    found = operations.rms_norm(x, weight, eps, device).numpy()
    expected = reference.rms_norm(x, weight, eps)
    bound = EPS * (4 + np.sqrt(shape[1]) / 16) * np.abs(expected)
    assert_within(found, expected, bound)
    assert_same_bits(operations.rms_norm(x[-1:], weight, eps, device).numpy(), found[-1:])


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4097), (3, 7), (300, 65)], ids=str)
def test_act_mul(shape: tuple[int, int], act: str, device: str) -> None:
    gate, up = numbers(1, *shape) * 5, numbers(2, *shape)
    found = operations.act_mul(gate, up, act, device).numpy()
    expected = reference.activation(gate, act) * up
    bound = reference.activation_bound(gate, act) * np.abs(up) + EPS * np.abs(expected)
    assert_within(found, expected, bound + reference.TINY)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_over_the_whole_range(act: str, device: str) -> None:
    exponents = np.linspace(-40, 7, 2000)
    gate = np.concatenate([-(2.0**exponents), 2.0**exponents, [0.0]]).astype(np.float32)[None]
    found = operations.act_mul(gate, np.ones_like(gate), act, device).numpy()
    expected = reference.activation(gate, act)
    assert_within(found, expected, 2 * reference.activation_bound(gate, act))


def test_activations_of_what_is_no_number(device: str) -> None:
    gate = np.array([[np.nan, np.inf, 1e30, -1e30]], np.float32)
    for act in ACTIVATIONS:
        found = operations.act_mul(gate, np.ones_like(gate), act, device).numpy()[0]
        assert np.isnan(found[0])
        assert found[1] == np.inf
        assert found[2] == np.float32(1e30)
        assert found[3] == 0


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (300, 128)], ids=str)
def test_add(shape: tuple[int, int], device: str) -> None:
    x, y = numbers(1, *shape), numbers(2, *shape)
    assert_same_bits(operations.add(x, y, device).numpy(), x + y)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 4, 10), (70, 2, 64), (5, 3, 130)], ids=str)
def test_rope(shape: tuple[int, int, int], device: str) -> None:
    x, angle = numbers(1, *shape), numbers(2, shape[0], shape[2] // 2)
    cos, sin = np.cos(angle), np.sin(angle)
    found = operations.rope(x, cos, sin, device).numpy()
    bound = 2 * EPS * reference.rope(np.abs(x), np.abs(cos), -np.abs(sin))[..., : shape[2] // 2]
    other = 2 * EPS * reference.rope(np.abs(x), np.abs(cos), np.abs(sin))[..., shape[2] // 2 :]
    assert_within(found, reference.rope(x, cos, sin), np.concatenate([bound, other], axis=-1))


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 64), (2, 1000), (300, 65)], ids=str)
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_softmax(shape: tuple[int, int], spread: float, device: str) -> None:
    x = numbers(1, *shape) * np.float32(spread)
    x[0, ::3] = -np.inf
    found = operations.softmax(x, device).numpy()
    expected = reference.softmax(x)
    peak = np.max(x, axis=-1, keepdims=True)
    distance = np.where(np.isinf(x), 0.0, np.where(np.isinf(peak), 0.0, peak) - x)
    bound = EPS * (6 + np.sqrt(shape[1]) / 4 + distance) * expected + reference.TINY
    assert_within(found, expected, bound)


def sequences_of(case: AttentionCase, *arrays: Array, keys: Array) -> Iterator[tuple[Any, ...]]:
    """For each sequence: its index range of queries, and its part of each array."""
    row = token = 0
    for rows, length in zip(case.rows, case.lengths, strict=True):
        span = slice(row, row + rows)
        yield span, keys[token : token + length], [a[token : token + length] for a in arrays]
        row, token = row + rows, token + length


class Attention:
    def __init__(self, case: AttentionCase, kv_dtype: str, device: str = "cpu") -> None:
        tokens = sum(case.lengths)
        self.case = case
        self.q = numbers(1, sum(case.rows), case.heads, case.head_dim)
        self.k = numbers(2, tokens, case.kv_heads, case.head_dim)
        self.v = numbers(3, tokens, case.kv_heads, case.head_dim)
        self.scale = case.head_dim**-0.5
        self.kv_dtype = kv_dtype
        self.device = device

    def run(self, fused: bool) -> Array:
        case = self.case
        rows, lengths = list(case.rows), list(case.lengths)
        y: Array = operations.attention(
            self.q,
            self.k,
            self.v,
            rows,
            lengths,
            case.window,
            self.scale,
            fused,
            self.kv_dtype,
            self.device,
        ).numpy()
        return y


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention(case: AttentionCase, kv_dtype: str, fused: bool, device: str) -> None:
    a = Attention(case, kv_dtype, device)
    found = a.run(fused)
    for span, k, (v,) in sequences_of(case, a.v, keys=a.k):
        q = a.q[span]
        if len(q) == 0:
            continue
        k, v = reference.kept(k, kv_dtype), reference.kept(v, kv_dtype)
        expected = reference.attention(q, k, v, case.window, a.scale)
        # Tensor cores take both factors in the type of the cache.
        tensor_cores = device == "cuda" and fused and kv_dtype == "bfloat16"
        rounding = 2.0**-9 if tensor_cores else 0.0
        bound = reference.attention_bound(q, k, v, case.window, a.scale, rounding)
        assert_within(found[span], expected, bound)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention_scores(case: AttentionCase, kv_dtype: str, device: str) -> None:
    a = Attention(case, kv_dtype)
    found = operations.attention_scores(
        a.q, a.k, list(case.rows), list(case.lengths), case.window, a.scale, kv_dtype, device
    ).numpy()
    assert found.shape == (case.heads, sum(case.rows), max(case.lengths))
    for span, k, _ in sequences_of(case, keys=a.k):
        q = a.q[span]
        if len(q) == 0:
            continue
        k = reference.kept(k, kv_dtype)
        expected = reference.scores(q, k, case.window, a.scale)
        magnitude = reference.scores(np.abs(q), np.abs(k), case.window, a.scale)
        here = found[:, span, : len(k)]
        masked = np.isinf(expected)
        assert np.array_equal(np.isneginf(here), masked)
        seen = ~masked
        assert_within(here[seen], expected[seen], 4 * EPS * magnitude[seen] + reference.TINY)
        assert np.all(np.isneginf(found[:, span, len(k) :]))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention_with_any_number_of_threads(
    case: AttentionCase, kv_dtype: str, fused: bool
) -> None:
    a = Attention(case, kv_dtype)
    infinilm.set_num_threads(1)
    alone = a.run(fused)
    for threads in (2, 7):
        infinilm.set_num_threads(threads)
        assert_same_bits(a.run(fused), alone)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_a_token_alone_attends_as_in_its_prompt(
    case: AttentionCase, kv_dtype: str, fused: bool
) -> None:
    """Prefill and decode, a batch and a sequence alone: the same bits."""
    a = Attention(case, kv_dtype)
    together = a.run(fused)
    for span, k, (v,) in sequences_of(case, a.v, keys=a.k):
        rows = span.stop - span.start
        for row in {0, rows // 2, rows - 1} if rows else ():
            length = len(k) - rows + row + 1
            alone = operations.attention(
                a.q[span][row : row + 1],
                k[:length],
                v[:length],
                [1],
                [length],
                case.window,
                a.scale,
                fused,
                kv_dtype,
            ).numpy()
            assert_same_bits(alone[0], together[span.start + row])


@pytest.mark.parametrize("head_dim", [5, 64])
def test_int8_keys_and_values_of_every_size(head_dim: int, device: str) -> None:
    """Ties, zeros, the smallest and the largest numbers; one key, so that its value comes back."""
    k = numbers(1, 40, 2, head_dim)
    v = k * np.float32(2.0) ** np.linspace(-160, 126, 40).astype(np.float32)[:, None, None]
    v[3] = 0
    v[4, :, 0], v[4, :, 1:] = 254, np.arange(1, 2 * head_dim - 2, 2)  # halves of the step of 2
    for token in range(len(v)):
        one = slice(token, token + 1)
        found = operations.attention(
            k[one], k[one], v[one], [1], [1], 0, 1.0, True, "int8", device
        ).numpy()
        expected = reference.kept(v[one], "int8")
        assert_within(found, expected, EPS * np.abs(expected) + 1e-44)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 10])
def test_what_is_no_number_comes_out_of_an_int8_cache_as_nan(
    bad: float, place: int, device: str
) -> None:
    q, k, v = numbers(1, 3, 2, 12), numbers(2, 3, 1, 12), numbers(3, 3, 1, 12)
    spoilt_k, spoilt_v = k.copy(), v.copy()
    spoilt_k[1, 0, place] = spoilt_v[1, 0, place] = bad
    for keys, values in ((spoilt_k, v), (k, spoilt_v)):
        found = operations.attention(
            q, keys, values, [3], [3], 0, 0.3, True, "int8", device
        ).numpy()
        assert np.all(np.isnan(found[1:]))  # the tokens that see it


def wrong_calls() -> Iterator[Any]:
    x, w, b = numbers(0, 3, 8), numbers(1, 5, 8), numbers(2, 5)
    cube = numbers(3, 3, 2, 4)
    packed = operations.PackedLinear

    def case(name: str, text: str, call: Any, error: type[Exception] = ValueError) -> Any:
        return pytest.param(call, text, error, id=name)

    yield case("no weights", "at least one", lambda: packed([], "float32"))
    yield case("compute", "compute.*float16", lambda: packed([w], "float16"))
    yield case("weight dtype", "weights.*float64", lambda: packed([w.astype("f8")], "float32"))
    yield case("weight rank", r"weights.*\(5,\)", lambda: packed([b], "float32"))
    yield case("dtypes", "one dtype", lambda: packed([w, w.astype("f2")], "float32"))
    yield case("columns", r"8 columns.*\(5, 7\)", lambda: packed([w, w[:, :7]], "float32"))
    yield case(
        "x columns", r"8 columns.*\(3, 7\)", lambda: packed([w], "float32").apply(x[:, 1:], [])
    )
    yield case("x dtype", "x.*float64", lambda: packed([w], "float32").apply(x.astype("f8"), []))
    yield case("bias", r"bias.*\(5,\).*\(4,\)", lambda: packed([w], "float32").apply(x, [b[1:]]))
    yield case("biases", "none or 1", lambda: packed([w], "float32").apply(x, [b, b]))
    yield case("parts", "one part", lambda: packed([w, w], "float32").apply_residual(x, [], x))
    yield case("residual", r"\(3, 5\)", lambda: packed([w], "float32").apply_residual(x, [], x))
    yield case(
        "two parts", "two parts", lambda: packed([w], "float32").apply_act_mul(x, [], "silu")
    )
    yield case("act", "hidden_act.*mish", lambda: operations.act_mul(x, x, "mish"))
    yield case("part", "one of 1", lambda: packed([w], "float32").unpack(1), IndexError)
    yield case("id", "from 0 to 4, found 5", lambda: operations.embed([0, 5], w), IndexError)
    yield case("negative id", "found -1", lambda: operations.embed([-1], w), IndexError)
    yield case("norm weight", r"\(8,\)", lambda: operations.rms_norm(x, b, 1e-6))
    yield case("up", r"up.*\(3, 8\)", lambda: operations.act_mul(x, w, "silu"))
    yield case("add", r"y.*\(3, 8\)", lambda: operations.add(x, w))
    yield case("odd head", "even", lambda: operations.rope(cube[..., :3], x[:, :1], x[:, :1]))
    yield case("cos", r"cos.*\(3, 2\)", lambda: operations.rope(cube, x, x))
    yield case("softmax", "2 dimensions", lambda: operations.softmax(b))

    def attend(
        q: Array, k: Array, v: Array, rows: list[int], lengths: list[int], window: int = 0
    ) -> Any:
        return lambda: operations.attention(q, k, v, rows, lengths, window, 1.0, True)

    yield case("v", "v: expected shape", attend(cube, cube, cube[:2], [3], [3]))
    yield case("heads", "2 heads", attend(cube[:, :1], cube, cube, [3], [3]))
    yield case("head_dim", "head_dim of 4", attend(cube[..., :2], cube, cube, [3], [3]))
    yield case("lengths", "sum of 3", attend(cube, cube, cube, [3], [4]))
    yield case("rows", "sum of 3", attend(cube, cube, cube, [2], [3]))
    yield case("rows of", "from 0 to 1", attend(cube, cube, cube, [1, 2], [2, 1]))
    yield case("ragged", "expected 1 numbers", attend(cube, cube, cube, [1, 2], [3]))
    yield case("window", "window", attend(cube, cube, cube, [3], [3], -1))
    yield case(
        "kv dtype",
        "float32, bfloat16 or int8 on the CPU, found float16",
        lambda: operations.attention(cube, cube, cube, [3], [3], 0, 1.0, True, "float16"),
    )


@pytest.mark.parametrize(("call", "text", "error"), list(wrong_calls()))
def test_wrong_shapes_and_dtypes(call: Any, text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=text):
        call()


def test_strided_inputs(device: str) -> None:
    x = numbers(0, 9, 40)[::2, ::-2]
    w = numbers(1, 24, 40)[:, ::2]
    y = operations.PackedLinear([w], "float32", device).apply(x, [])[0].numpy()
    copied = operations.PackedLinear([w.copy()], "float32", device)
    expected = copied.apply(x.copy(), [])[0].numpy()
    assert_same_bits(y, expected)


def test_empty_inputs(device: str) -> None:
    w = numbers(0, 5, 8)

    def product(x: Array, weight: Array) -> Any:
        return operations.PackedLinear([weight], "float32", device).apply(x, [])[0].numpy()

    assert product(np.zeros((0, 8), "f4"), w).shape == (0, 5)
    assert product(numbers(1, 2, 8), w[:0]).shape == (2, 0)
    assert_same_bits(product(np.zeros((2, 0), "f4"), w[:, :0]), np.zeros((2, 5), np.float32))
    assert operations.embed([], w, device).shape == (0, 8)
    assert operations.softmax(np.zeros((0, 3), "f4"), device).shape == (0, 3)
    nothing = operations.rms_norm(np.zeros((0, 3), "f4"), np.ones(3, "f4"), 1e-6, device)
    assert nothing.shape == (0, 3)


@pytest.mark.parametrize("level", infinilm.available_cpu_levels())
def test_every_instruction_set_of_this_machine(level: str) -> None:
    run_again(level, __file__, "-k", "not cuda")
