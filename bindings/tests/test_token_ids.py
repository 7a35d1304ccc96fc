"""Token ids: an int or a sequence of ints everywhere, and the strictness of every other field of a config."""

from __future__ import annotations

import array
import decimal
import re
from collections import deque
from typing import Any

import numpy as np
import pytest
from infinilm import GenerationConfig, LlamaConfig, engine

FIELDS = [
    (LlamaConfig, "bos_token_id"),
    (LlamaConfig, "eos_token_id"),
    (GenerationConfig, "eos_token_id"),
    (GenerationConfig, "stop_token_ids"),
]


def label(value: Any) -> str:
    """Give its repr without an address, so that a test has the same name in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


IDS = pytest.mark.parametrize(("kind", "field"), FIELDS, ids=lambda value: str(value))


class Index:
    """What can be used as an index is an int."""

    def __index__(self) -> int:
        return 7


@IDS
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, [5]),
        (0, [0]),
        (-1, [-1]),
        (2**63 - 1, [2**63 - 1]),
        (-(2**63), [-(2**63)]),
        (np.int64(5), [5]),
        (np.uint8(200), [200]),
        (Index(), [7]),
        (np.array(5), [5]),
        ([], []),
        ((), []),
        ([2, 3], [2, 3]),
        ((2, 3), [2, 3]),
        (range(3), [0, 1, 2]),
        (deque([1, 2]), [1, 2]),
        ([np.int32(2), Index(), 3], [2, 7, 3]),
        (np.array([1, 2]), [1, 2]),
        (np.array([1, 2], np.uint16)[::-1], [2, 1]),
        (np.array([], np.int64), []),
        (array.array("i", [4, 5]), [4, 5]),
        (memoryview(array.array("q", [6])), [6]),
        ([2, 2], [2, 2]),
    ],
    ids=label,
)
def test_accepted(kind: type, field: str, value: Any, expected: list[int]) -> None:
    config = kind()
    setattr(config, field, value)
    found = getattr(config, field)
    assert found == expected
    assert type(found) is list
    assert all(type(i) is int for i in found)
    assert getattr(kind(**{field: value}), field) == expected


@IDS
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "bool"),
        (1.0, "float"),
        ("1", "str"),
        (b"1", "bytes"),
        (bytearray(b"1"), "bytearray"),
        (None, "NoneType"),
        ({1}, "set"),
        ({1: 2}, "dict"),
        (np.bool_(True), ""),
        (np.float32(1), "float32"),
        (np.array(True), "ndarray"),
        (np.array(1.0), "ndarray"),
        (np.array([True, False]), "ndarray"),
        (decimal.Decimal(1), "Decimal"),
        ((i for i in range(2)), "generator"),
        (object(), "object"),
        (int, "type"),
    ],
    ids=label,
)
def test_refused_by_the_field_s_name(kind: type, field: str, value: Any, name: str) -> None:
    config = kind()
    setattr(config, field, [8, 9])
    with pytest.raises(
        TypeError, match=rf"^{field} must be an int or a sequence of ints, not {name}"
    ):
        setattr(config, field, value)
    assert getattr(config, field) == [8, 9]
    with pytest.raises(TypeError, match=field):
        kind(**{field: value})


@IDS
@pytest.mark.parametrize(
    ("value", "index", "name"),
    [
        ([1, True], 1, "bool"),
        ([1.5], 0, "float"),
        (["1"], 0, "str"),
        ([1, None], 1, "NoneType"),
        ([[1]], 0, "list"),
        ([1, [2]], 1, "list"),
        ((1, 2, b"x"), 2, "bytes"),
        (np.array([[1, 2]]), 0, "list"),
        (np.array([1.0, 2.0]), 0, "float"),
        ([np.bool_(True)], 0, ""),
        ([1, np.float64(2)], 1, "float64"),
        (np.array(["a"]), 0, "str"),
        (np.array([1, None]), 1, "NoneType"),
    ],
    ids=label,
)
def test_refused_by_the_element_s_index(
    kind: type, field: str, value: Any, index: int, name: str
) -> None:
    config = kind()
    setattr(config, field, [8, 9])
    with pytest.raises(TypeError, match=rf"^{field}\[{index}\] must be an int, not {name}"):
        setattr(config, field, value)
    assert getattr(config, field) == [8, 9]


@IDS
@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, 2**64, 10**30, [1, 2**63], np.array([2**63], np.uint64)]
)
def test_out_of_range(kind: type, field: str, value: Any) -> None:
    config = kind()
    setattr(config, field, [8, 9])
    with pytest.raises(OverflowError, match=rf"{field}.*64-bit"):
        setattr(config, field, value)
    assert getattr(config, field) == [8, 9]


def test_the_list_is_a_copy() -> None:
    config = LlamaConfig(eos_token_id=[1, 2])
    config.eos_token_id.append(3)
    assert config.eos_token_id == [1, 2]


def test_errors_of_an_index_are_kept() -> None:
    class Broken:
        def __index__(self) -> int:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        LlamaConfig(bos_token_id=Broken())
    with pytest.raises(ZeroDivisionError, match="mine"):
        LlamaConfig(bos_token_id=[Broken()])


def test_a_list_that_changes_meanwhile() -> None:
    class Shrinking:
        def __index__(self) -> int:
            values.clear()
            return 1

    values: list[Any] = [Shrinking(), 2, 3]
    with pytest.raises(IndexError):
        LlamaConfig(bos_token_id=values)


def test_batches_of_ids_name_row_and_column() -> None:
    model = engine.LlamaForCausalLM(
        LlamaConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, vocab_size=5)
    )
    for ids, text in (
        ([[1], [2, 1.5]], r"ids\[1\]\[1\] must be an int, not float"),
        ([1, 2], r"ids\[0\] must be a sequence of ints, not int"),
        (3, "ids must be a sequence of sequences of ints, not int"),
        (["12"], r"ids\[0\] must be a sequence of ints, not str"),
    ):
        with pytest.raises(TypeError, match=text):
            model.forward_packed(ids, [0], None)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["vocab_size", "head_dim", "num_hidden_layers", "sliding_window"])
def test_sizes(field: str) -> None:
    config = LlamaConfig()
    old = getattr(config, field)
    for value, kind in (
        (1.0, TypeError),
        (True, TypeError),
        ("8", TypeError),
        ([8], TypeError),
        (np.bool_(True), TypeError),
        (np.float32(8), TypeError),
        (-1, (ValueError, OverflowError)),
        (np.int64(-1), (ValueError, OverflowError)),
        (-(2**70), (ValueError, OverflowError)),
        (2**64, OverflowError),
    ):
        with pytest.raises(kind, match=field):
            setattr(config, field, value)
        assert getattr(config, field) == old
    for good in (8, np.int32(8), Index(), 2**64 - 1):
        setattr(config, field, good)
        assert getattr(config, field) == good.__index__()
        assert type(getattr(config, field)) is int


@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps"])
def test_floats(field: str) -> None:
    config = LlamaConfig()
    old = getattr(config, field)
    for bad in (True, "1", None, [1.0], 1j, np.bool_(True)):
        with pytest.raises(TypeError, match=f"{field} must be a float"):
            setattr(config, field, bad)
        assert getattr(config, field) == old
    for good in (2, 2.5, np.float32(0.5), np.int64(3), decimal.Decimal("1.5")):
        setattr(config, field, good)
        assert getattr(config, field) == float(good)
        assert type(getattr(config, field)) is float


@pytest.mark.parametrize("field", ["use_cache", "attention_bias", "tie_word_embeddings"])
def test_flags(field: str) -> None:
    config = LlamaConfig()
    old = getattr(config, field)
    for bad in (1, 0, "true", None, 1.0, [], np.int64(1)):
        with pytest.raises(TypeError, match=f"{field} must be a bool"):
            setattr(config, field, bad)
        assert getattr(config, field) is old
    for good in (True, False, np.bool_(True)):
        setattr(config, field, good)
        assert getattr(config, field) is bool(good)


def test_texts() -> None:
    config = LlamaConfig()
    for bad in (1, None, b"silu", ["silu"]):
        with pytest.raises(TypeError, match="hidden_act must be a str"):
            config.hidden_act = bad  # type: ignore[assignment]
    assert config.hidden_act == "silu"
    config.name_or_path = "名前/ñ\0x"
    assert config.name_or_path == "名前/ñ\0x"
    with pytest.raises(UnicodeEncodeError):
        config.name_or_path = "\ud800"


def test_optional_fields() -> None:
    config = LlamaConfig(sliding_window=4, pad_token_id=-1)
    assert (config.sliding_window, config.pad_token_id) == (4, -1)
    config.sliding_window = config.pad_token_id = None
    assert (config.sliding_window, config.pad_token_id) == (None, None)
    with pytest.raises(TypeError, match="pad_token_id must be an int, not str"):
        config.pad_token_id = "0"  # type: ignore[assignment]
    settings = GenerationConfig(seed=2**64 - 1, max_new_tokens=3)
    assert (settings.seed, settings.max_new_tokens, settings.max_length) == (2**64 - 1, 3, None)
    with pytest.raises(ValueError, match="seed must not be negative"):
        settings.seed = -1
