"""LlamaConfig: its fields, and what they demand of each other."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from configs import DEFAULTS, ROPE, hf
from hypothesis import given, settings
from hypothesis import strategies as st
from infinilm import DataType, LlamaConfig, ModelConfig

OTHER: dict[str, Any] = {
    "dtype": DataType.BF16,
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "decoupled_head_dim": True,
    "max_position_embeddings": 64,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "rms_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "model_type": "qwen3",
    "use_cache": False,
    "attention_bias": False,
    "attention_output_bias": True,
    "mlp_bias": True,
    "tie_word_embeddings": True,
    "qk_norm": True,
    "sliding_window": 16,
    "attention_dropout": 0.1,
    "initializer_range": 0.5,
    "pretraining_tp": 2,
    "name_or_path": "über/alles",
    "pad_token_id": 0,
    "bos_token_id": [],
    "eos_token_id": [2, 3],
}


# A value with fields


def test_the_defaults() -> None:
    config = LlamaConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert list(LlamaConfig.field_names()) == list(DEFAULTS)
    assert isinstance(config, ModelConfig)


def test_every_field_can_be_set_and_compared() -> None:
    config = LlamaConfig(**OTHER)
    assert {name: getattr(config, name) for name in OTHER} == OTHER
    for name, value in OTHER.items():
        changed = LlamaConfig()
        setattr(changed, name, value)
        assert getattr(changed, name) == value
        assert changed != LlamaConfig()
        setattr(changed, name, DEFAULTS[name])
        assert changed == LlamaConfig()


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda c: pickle.loads(pickle.dumps(c)),
        lambda c: LlamaConfig.from_json(c.to_json()),
        lambda c: LlamaConfig.from_dict(c.to_dict()),
    ],
    ids=["copy", "deepcopy", "pickle", "json", "dict"],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        OTHER,
        {"head_dim": 128},
        {"hidden_size": 7, "num_attention_heads": 0},
        {"model_type": "unheard-of", "hidden_act": "\x00\n", "rope_theta": math.inf},
        {"vocab_size": 2**63},
    ],
    ids=["default", "other", "head_dim_set", "invalid", "odd", "huge"],
)
def test_copies_are_equal_and_independent(copied: Any, fields: dict[str, Any]) -> None:
    config = LlamaConfig(**fields)
    twin = copied(config)
    assert twin == config
    assert {n: getattr(twin, n) for n in DEFAULTS} == {n: getattr(config, n) for n in DEFAULTS}
    config.hidden_size = 640
    assert twin.hidden_size != 640
    assert twin != config


@pytest.mark.parametrize("copied", [copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_what_follows_goes_on_following_in_a_copy(copied: Any) -> None:
    following, fixed = copied(LlamaConfig()), copied(LlamaConfig(head_dim=128))
    assert following == fixed
    following.hidden_size = fixed.hidden_size = 640
    assert (following.head_dim, fixed.head_dim) == (20, 128)


def test_a_dict_of_a_config_makes_one() -> None:
    for config in (LlamaConfig(), LlamaConfig(**OTHER)):
        assert LlamaConfig(**config.to_dict()) == config
    assert list(LlamaConfig().to_dict()) == sorted(DEFAULTS)


def test_head_dim_follows_until_it_is_set() -> None:
    config = LlamaConfig()
    config.hidden_size = 512
    assert config.head_dim == 16
    config.num_attention_heads = 0
    assert config.head_dim == 0
    config.num_attention_heads = 8
    config.head_dim = 100
    config.hidden_size = 64
    assert config.head_dim == 100


def test_the_width_of_keys() -> None:
    assert LlamaConfig(num_key_value_heads=8).kv_dim() == 1024
    assert LlamaConfig(head_dim=64, num_key_value_heads=4).kv_dim() == 256


# validate and check

INVALID: list[tuple[dict[str, Any], list[str]]] = [
    ({"hidden_size": 4095}, ["hidden_size (4095)", "num_attention_heads (32)"]),
    ({"num_key_value_heads": 3}, ["num_attention_heads (32)", "num_key_value_heads (3)"]),
    ({"num_key_value_heads": 64}, ["num_key_value_heads (64)"]),
    ({"head_dim": 64}, ["head_dim (64)", "4096 / 32", "decoupled_head_dim"]),
    ({"head_dim": 7, "decoupled_head_dim": True}, ["even", "7"]),
    ({"head_dim": 0, "decoupled_head_dim": True}, ["head_dim"]),
    ({"sliding_window": 0}, ["sliding_window"]),
    ({"rms_norm_eps": 0.0}, ["rms_norm_eps"]),
    ({"rms_norm_eps": math.nan}, ["rms_norm_eps"]),
    ({"rope_theta": -1.0}, ["rope_theta", "-1"]),
    ({"rope_theta": math.inf}, ["rope_theta", "inf"]),
    ({"attention_dropout": 2.0}, ["attention_dropout", "2"]),
    ({"hidden_act": "tanh"}, ["hidden_act", "tanh", "silu"]),
    ({"model_type": "gpt2"}, ["model_type", "gpt2", "qwen3"]),
    ({"dtype": "int8"}, ["dtype", "int8"]),
    ({"vocab_size": 2**62}, ["vocab_size * hidden_size", str(2**62)]),
    ({"num_hidden_layers": 2**40}, ["num_hidden_layers", str(2**40)]),
    (
        {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
        ["short_factor", "64", "found 1"],
    ),
    ({"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["rope_theta"]),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 1e300}}, ["factor"]),
]


@pytest.mark.parametrize(("fields", "named"), INVALID, ids=lambda v: next(iter(v), None))
def test_what_is_wrong_is_named_with_its_numbers(fields: dict[str, Any], named: list[str]) -> None:
    config = LlamaConfig(**fields)
    assert not config.validate()
    with pytest.raises(ValueError, match="invalid") as error:
        config.check()
    assert [text for text in named if text not in str(error.value)] == []


@pytest.mark.parametrize(
    "size", [n for n, v in DEFAULTS.items() if type(v) is int and n not in ("head_dim",)]
)
def test_sizes_are_above_zero(size: str) -> None:
    fields: dict[str, Any] = {size: 0}
    config = LlamaConfig(**fields)
    assert not config.validate()
    with pytest.raises(ValueError, match=f"{size} must be above 0"):
        config.check()


def test_every_violation_is_listed() -> None:
    config = LlamaConfig(hidden_size=10, num_attention_heads=3, num_key_value_heads=2, vocab_size=0)
    with pytest.raises(ValueError, match="hidden_size") as error:
        config.check()
    assert str(error.value).count(";") >= 2


def test_what_is_right_passes() -> None:
    choices: list[dict[str, Any]] = [{}, {"head_dim": 64, "decoupled_head_dim": True}]
    for fields in [*choices, {"sliding_window": 1}]:
        config = LlamaConfig(**fields)
        assert config.validate()
        config.check()
    for rope_type, parameters in ROPE.items():
        config = hf(rope_scaling={"rope_type": rope_type, **parameters})
        config.check()
        assert config.max_sequence_length() == (256 if rope_type == "dynamic" else 64)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            name: st.sampled_from([0, 1, 2, 3, 64, 100, 2**31, 2**32, 2**61, 2**63 - 1])
            for name, value in DEFAULTS.items()
            if type(value) is int
        }
    ),
    st.booleans(),
    st.sampled_from([0.0, -0.0, 1e-300, 1e308, math.nan, math.inf, -1.0]),
)
def test_no_numbers_do_harm(sizes: dict[str, Any], decoupled: bool, number: float) -> None:
    config = LlamaConfig(**sizes, decoupled_head_dim=decoupled, rope_theta=number)
    valid = config.validate()
    heads = sizes["num_attention_heads"]
    if valid:
        assert sizes["hidden_size"] % heads == 0
        assert heads % sizes["num_key_value_heads"] == 0
        assert min(sizes.values()) > 0
        assert number > 0
    else:
        with pytest.raises(ValueError, match="invalid"):
            config.check()
    config.kv_dim()
    config.max_sequence_length()
    assert LlamaConfig.from_json(config.to_json()).to_json() == config.to_json()


# The attribute rope_scaling


def test_rope_scaling_is_a_copy() -> None:
    config = LlamaConfig(rope_scaling={"type": "linear", "factor": np.float64(2)})
    scaling = config.rope_scaling
    assert scaling == {"rope_type": "linear", "factor": 2.0}
    scaling["factor"] = 3.0
    assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    config.rope_scaling = None
    assert config == LlamaConfig()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": math.nan}, "factor"),
        ({"rope_type": "linear", "factor": 2.0, "fctor": 1}, "fctor"),
        ({"rope_type": "ntk"}, "ntk"),
        ({"rope_type": 3}, "rope_type"),
    ],
)
def test_a_refused_rope_scaling_leaves_the_old_one(value: dict[str, Any], named: str) -> None:
    config = LlamaConfig(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(ValueError, match=named):
        config.rope_scaling = value
    assert config.rope_scaling == {"rope_type": "dynamic", "factor": 2.0}
