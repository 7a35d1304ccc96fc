"""LlamaConfig: its fields, what they demand of each other, and HuggingFace's config.json."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infinilm import DataType, LlamaConfig, ModelConfig

DEFAULTS: dict[str, Any] = {
    "dtype": DataType.F32,
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "decoupled_head_dim": False,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "model_type": "llama",
    "use_cache": True,
    "attention_bias": True,
    "attention_output_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "qk_norm": False,
    "sliding_window": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "pretraining_tp": 1,
    "name_or_path": "",
    "pad_token_id": None,
    "bos_token_id": [1],
    "eos_token_id": [2],
}
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
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ROPE: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "attention_factor": 1.1,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "truncate": False,
    },
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 2.0},
}

SLOW_AND_SHARED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
in_a_folder = settings(deadline=None, suppress_health_check=SLOW_AND_SHARED, max_examples=200)


def hf(**changes: Any) -> LlamaConfig:
    """A small HF file with some keys other than usual; None leaves one out, "null" says null."""
    fields = {**SMALL, **changes}
    kept = {k: None if v == "null" else v for k, v in fields.items() if v is not None}
    return LlamaConfig.from_dict(kept)


def with_text(key: str, text: str) -> str:
    """A small HF file as text, in which ``key`` has exactly this value."""
    fields = {k: v for k, v in SMALL.items() if k != key}
    return json.dumps(fields)[:-1] + f', "{key}": {text}}}'


def saved(config: LlamaConfig, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    written: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return written


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


# HF's config.json, read


def test_what_an_omitted_key_means() -> None:
    llama = LlamaConfig.from_dict({"model_type": "llama", "num_attention_heads": 16})
    assert (llama.num_key_value_heads, llama.attention_bias, llama.head_dim) == (16, False, 256)
    mistral = LlamaConfig.from_dict({"model_type": "mistral"})
    assert (mistral.num_key_value_heads, mistral.sliding_window) == (8, 4096)
    assert (mistral.intermediate_size, mistral.max_position_embeddings) == (14336, 131072)
    qwen2 = LlamaConfig.from_dict({"model_type": "qwen2"})
    assert (qwen2.vocab_size, qwen2.num_key_value_heads, qwen2.head_dim) == (151936, 32, 128)
    assert (qwen2.bos_token_id, qwen2.eos_token_id, qwen2.sliding_window) == ([], [], None)
    assert (qwen2.attention_bias, qwen2.attention_output_bias, qwen2.qk_norm) == (
        True,
        False,
        False,
    )
    qwen3 = LlamaConfig.from_dict({"model_type": "qwen3", "hidden_size": 2048})
    assert (qwen3.head_dim, qwen3.decoupled_head_dim, qwen3.qk_norm) == (128, True, True)
    assert (qwen3.attention_bias, qwen3.max_position_embeddings) == (False, 32768)


@pytest.mark.parametrize(
    ("model_type", "flag", "biases"),
    [
        ("llama", True, (True, True, True)),
        ("llama", False, (False, False, False)),
        ("qwen3", True, (True, True, False)),
        ("qwen3", None, (False, False, False)),
        ("qwen2", None, (True, False, False)),
        ("qwen2", False, (True, False, False)),
        ("mistral", True, (False, False, False)),
    ],
)
def test_what_attention_bias_means(model_type: str, flag: bool | None, biases: Any) -> None:
    config = hf(model_type=model_type, attention_bias=flag, mlp_bias=flag)
    assert (config.attention_bias, config.attention_output_bias, config.mlp_bias) == biases


def test_head_dim_of_a_file() -> None:
    plain = hf(head_dim=16)
    assert (plain.head_dim, plain.decoupled_head_dim) == (16, False)
    assert plain == hf() == hf(head_dim="null")
    other = hf(head_dim=32)
    assert (other.head_dim, other.decoupled_head_dim, other.kv_dim()) == (32, True, 64)
    assert other.validate()


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "float16", "torch_dtype": "bfloat16"}, "float16"),
        ({"dtype": "null", "torch_dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "null"}, "float32"),
        ({"torch_dtype": "auto"}, "float32"),
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_dtypes(keys: dict[str, str], dtype: str) -> None:
    assert str(hf(**keys).dtype) == dtype


def test_token_ids() -> None:
    config = hf(bos_token_id=5, eos_token_id=[6, 7], pad_token_id=-1)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ([5], [6, 7], -1)
    config = hf(bos_token_id="null", eos_token_id="null", pad_token_id="null")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ([], [], None)
    assert hf(eos_token_id=[]).eos_token_id == []


@pytest.mark.parametrize("rope_type", ROPE)
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_both_layouts_of_rope(rope_type: str, key: str) -> None:
    parameters = ROPE[rope_type]
    old = hf(rope_theta=5e5, rope_scaling={key: rope_type, **parameters})
    new = hf(rope_parameters={"rope_theta": 5e5, key: rope_type, **parameters})
    assert old == new
    assert old.rope_scaling == {"rope_type": rope_type, **parameters}
    assert old.rope_theta == 5e5


def test_rope_without_scaling() -> None:
    theta = {"rope_theta": 5e5}
    plain = hf(**theta)
    for same in (
        hf(**theta, rope_scaling="null"),
        hf(**theta, rope_scaling={}),
        hf(rope_parameters={**theta, "rope_type": "default"}),
        hf(rope_parameters=theta),
        hf(rope_theta=3.0, rope_parameters=theta),
        hf(**theta, partial_rotary_factor=None),
    ):
        assert same == plain
    assert plain.rope_scaling is None


def test_rope_type_wins_over_type_and_the_outer_length_over_the_inner() -> None:
    scaling = {"rope_type": "llama3", "type": "linear", **ROPE["llama3"]}
    config = hf(rope_scaling=scaling, original_max_position_embeddings=48)
    assert config.rope_scaling is not None
    assert config.rope_scaling["rope_type"] == "llama3"
    assert config.rope_scaling["original_max_position_embeddings"] == 48


def test_a_factor_of_null_is_the_ratio_of_the_lengths() -> None:
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16}
    config = hf(rope_scaling=scaling)
    assert config.rope_scaling is not None
    assert config.rope_scaling["factor"] == 4.0


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({"model_type": "llama", "sliding_window": 8}, None),
        ({"model_type": "mistral", "sliding_window": 8}, 8),
        ({"model_type": "mistral", "sliding_window": "null"}, None),
        ({"model_type": "qwen2", "sliding_window": 8}, None),
        ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": True}, None),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 8,
                "use_sliding_window": True,
                "max_window_layers": 0,
            },
            8,
        ),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 8,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention"] * 2,
            },
            8,
        ),
        ({"model_type": "qwen3", "layer_types": ["full_attention"] * 2}, None),
    ],
)
def test_sliding_windows(keys: dict[str, Any], window: int | None) -> None:
    assert hf(**keys).sliding_window == window


# What is refused, by name


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"model_type": "gpt2"}, ["model_type", "gpt2"]),
        ({"model_type": None, "architectures": ["GPT2LMHeadModel"]}, ["model_type", "GPT2"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config", "quant_method"]),
        ({"num_experts": 8}, ["num_experts", "8"]),
        ({"num_local_experts": 8}, ["num_local_experts"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            ["partial_rotary_factor", "0.5"],
        ),
        ({"hidden_act": "tanh"}, ["hidden_act", "tanh"]),
        ({"torch_dtype": "float64"}, ["torch_dtype", "float64"]),
        ({"torch_dtype": "f32"}, ["torch_dtype", "f32"]),
        ({"dtype": 3}, ["dtype", "3"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types", "sliding"]),
        ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, ["layer_types"]),
        ({"model_type": "qwen2", "layer_types": ["full_attention"]}, ["layer_types", "2 times"]),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1},
            ["max_window_layers", "1"],
        ),
        ({"rope_scaling": {"rope_type": "su", "factor": 2.0}}, ["rope_scaling", "su", "longrope"]),
        ({"rope_scaling": {"rope_type": "mrope"}}, ["rope_scaling", "mrope"]),
        ({"rope_scaling": {"factor": 2.0}}, ["rope_scaling", "rope_type"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling", "linear", "factor"]),
        ({"rope_scaling": {"rope_type": "yarn"}}, ["yarn", "factor"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["low_freq_factor"]),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, ["short_factor"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, ["rope_scaling.factor", '"2"']),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, ["factor", "0"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": -2.0}}, ["factor", "-2"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": True}}, ["factor", "true"]),
        ({"rope_scaling": [1]}, ["rope_scaling", "[1]"]),
        ({"rope_scaling": "linear"}, ["rope_scaling", "linear"]),
        (
            {"rope_scaling": {"rope_type": "llama3", **ROPE["llama3"], "high_freq_factor": 1.0}},
            ["high_freq_factor", "low_freq_factor"],
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, ["rope_parameters"]),
        ({"rope_parameters": {"rope_theta": "1e4"}}, ["rope_parameters.rope_theta"]),
        ({"per_layer_config": {"0": {}}}, ["per_layer_config"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_unsupported_options_are_refused(keys: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError, match=r"expected|needs") as error:
        hf(**keys)
    assert [text for text in named if text not in str(error.value)] == []


MALFORMED = [
    '"64"', "64.5", "64.0", "-1", "18446744073709551616", "NaN", "Infinity", "true", "1e308",
    "1e400", "[64]", '{"a": 1}', "null", "-0", "0", "",
]  # fmt: skip
SIZES = [n for n, v in DEFAULTS.items() if type(v) is int]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("key", SIZES)
def test_malformed_sizes(key: str, text: str) -> None:
    if text == "null" and key in ("num_key_value_heads", "head_dim", "pretraining_tp"):
        assert LlamaConfig.from_json(with_text(key, text)).validate()  # as if it were not there
        return
    with pytest.raises(ValueError, match=key):
        LlamaConfig.from_json(with_text(key, text))


@pytest.mark.parametrize("text", ['"1"', "NaN", "-1", "true", "1e400", "[1]", "{}", ""])
@pytest.mark.parametrize(
    "key", ["rms_norm_eps", "rope_theta", "attention_dropout", "initializer_range"]
)
def test_malformed_numbers(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=key):
        LlamaConfig.from_json(with_text(key, text))


@pytest.mark.parametrize("text", ['"true"', "0", "1", "null", "[true]", "{}"])
@pytest.mark.parametrize("key", ["use_cache", "attention_bias", "mlp_bias", "tie_word_embeddings"])
def test_malformed_flags(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=key):
        LlamaConfig.from_json(with_text(key, text))


@pytest.mark.parametrize(
    "text", ['"1"', "1.0", "true", "9223372036854775808", "[[1]]", "[1, 2.0]", "[null]", "{}"]
)
@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_malformed_token_ids(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=key):
        LlamaConfig.from_json(with_text(key, text))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '"x"', "1", "\ufeff{}", '{"a": 1, "a": 2}', '{"a": 1,}', "{} {}",
        '{"a": "\\ud800"}', '{"a": ' + "[" * 100 + "]" * 100 + "}", "[" * 1_000_000, '{"a": \x00}',
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_what_is_no_config_at_all(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config|object"):
        LlamaConfig.from_json(text)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json") as error:
        LlamaConfig.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        LlamaConfig.from_pretrained(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        LlamaConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        LlamaConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").rmdir()
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="UTF-8"):
        LlamaConfig.from_pretrained(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [*DEFAULTS, "torch_dtype", "rope_parameters", "use_sliding_window", "layer_types", "x"]


@in_a_folder
@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
def test_anything_is_refused_or_survives(tmp_path: Path, changes: dict[str, Any]) -> None:
    try:
        config = LlamaConfig.from_dict({**SMALL, **changes})
    except ValueError:
        return
    text = config.to_json()
    assert LlamaConfig.from_json(text).to_json() == text
    if not config.validate():
        return
    try:
        config.save_pretrained(tmp_path)
    except ValueError:  # what HF cannot express
        return
    again = LlamaConfig.from_pretrained(tmp_path)
    names = set(DEFAULTS)
    if config.head_dim * config.num_attention_heads == config.hidden_size:
        names.remove("decoupled_head_dim")  # says nothing then, and HF has no place for it
    assert {n: getattr(again, n) for n in names} == {n: getattr(config, n) for n in names}


# HF's config.json, written


@pytest.mark.parametrize("rope_type", [None, *ROPE])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_is_saved_is_read(tmp_path: Path, model_type: str, rope_type: str | None) -> None:
    scaling = rope_type and {"rope_type": rope_type, **ROPE[rope_type]}
    config = hf(model_type=model_type, rope_scaling=scaling, head_dim=16, dtype="bfloat16")
    config.save_pretrained(tmp_path / "made" / "new")
    assert LlamaConfig.from_pretrained(tmp_path / "made" / "new") == config
    written = saved(config, tmp_path)
    assert (written["model_type"], written["dtype"]) == (model_type, "bfloat16")
    assert not set(written) & {"attention_output_bias", "qk_norm", "decoupled_head_dim"}


def test_a_window_of_qwen_is_saved(tmp_path: Path) -> None:
    config = hf(model_type="qwen2")
    config.sliding_window = 8
    written = saved(config, tmp_path)
    assert (written["use_sliding_window"], written["max_window_layers"]) == (True, 0)
    assert LlamaConfig.from_pretrained(tmp_path) == config


def test_token_ids_are_saved_as_transformers_has_them(tmp_path: Path) -> None:
    config = hf(bos_token_id=1, eos_token_id=[2, 3])
    assert saved(config, tmp_path)["bos_token_id"] == 1
    assert saved(config, tmp_path)["eos_token_id"] == [2, 3]
    config.bos_token_id, config.eos_token_id = [], []
    assert saved(config, tmp_path)["bos_token_id"] is None
    assert saved(config, tmp_path)["eos_token_id"] is None
    config.eos_token_id = 7
    assert saved(config, tmp_path)["eos_token_id"] == 7


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bos_token_id": [1, 2]}, "bos_token_id"),
        ({"attention_bias": True}, "attention_output_bias"),
        ({"attention_output_bias": True}, "attention_output_bias"),
        ({"qk_norm": True}, "qk_norm"),
        ({"sliding_window": 8}, "sliding_window"),
        ({"model_type": "qwen2"}, "attention_bias"),
        ({"model_type": "qwen2", "attention_bias": True, "mlp_bias": True}, "mlp_bias"),
        ({"model_type": "qwen3"}, "qk_norm"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
    ],
)
def test_what_hf_cannot_express_is_refused(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    config = hf()
    for name, value in fields.items():
        setattr(config, name, value)
    assert config.validate()
    with pytest.raises(ValueError, match=named):
        config.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert LlamaConfig.from_json(config.to_json()) == config


def test_an_invalid_config_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hidden_size"):
        LlamaConfig(hidden_size=7).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_keys_survive(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "transformers_version": "4.57.0",
        "ü": {"a": [1, 2.5, None, True, "x"], "b": {}},
        "id2label": {"0": "LABEL_0"},
    }
    rope = {"rope_type": "linear", "factor": 2.0, "invented": [1]}
    config = hf(**unknown, rope_scaling=rope)
    for written in (saved(config, tmp_path), config.to_dict(), saved(config, tmp_path)):
        assert {key: written[key] for key in unknown} == unknown
        assert written["rope_scaling"] == rope
    again = LlamaConfig.from_json(config.to_json())
    assert again == config
    assert copy.copy(config).to_dict()["ü"] == unknown["ü"]
    assert config != hf(rope_scaling=rope)


def test_saving_replaces_the_file_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    hf().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        hf().save_pretrained(tmp_path / "file")


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


# GenerationConfig


def test_generation_configs_of_hf() -> None:
    config = infinilm.GenerationConfig.from_json(
        '{"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "do_sample": true, '
        '"temperature": 0.6, "top_p": 0.9, "top_k": null, "repetition_penalty": 1.05, '
        '"max_new_tokens": 12, "num_beams": 1, "length_penalty": 2.0, "typical_p": 1.0, '
        '"transformers_version": "4.57.0", "output_scores": true, "suppress_tokens": null}'
    )
    assert (config.eos_token_id, config.pad_token_id, config.do_sample) == ([2, 3], 0, True)
    assert (config.temperature, config.top_p, config.top_k) == (0.6, 0.9, 50)
    assert (config.repetition_penalty, config.max_new_tokens) == (1.05, 12)
    assert infinilm.GenerationConfig.from_json(config.to_json()) == config
    assert infinilm.GenerationConfig.from_json("{}").eos_token_id == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("no_repeat_ngram_size", 3),
        ("bad_words_ids", [[1]]),
        ("forced_eos_token_id", 2),
        ("typical_p", 0.9),
        ("epsilon_cutoff", 0.1),
        ("min_new_tokens", 3),
        ("suppress_tokens", [1]),
        ("guidance_scale", 1.5),
        ("stop_strings", ["x"]),
        ("cache_implementation", "quantized"),
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("max_length", True),
        ("do_sample", 1),
        ("eos_token_id", "2"),
        ("eos_token_id", [2.0]),
    ],
)
def test_generation_options_that_cannot_be_honoured(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        infinilm.GenerationConfig.from_json(json.dumps({name: value}))


def test_eos_comes_from_the_generation_config_where_there_is_one(tmp_path: Path) -> None:
    model = hf(eos_token_id=[7], pad_token_id=3)
    read = infinilm.GenerationConfig.from_pretrained
    assert read(tmp_path, model).eos_token_id == [7]
    assert read(tmp_path, model).pad_token_id == 3
    path = tmp_path / "generation_config.json"
    path.write_text('{"eos_token_id": 9}')
    assert read(tmp_path, model).eos_token_id == [9]
    path.write_text("{}")
    assert read(tmp_path, model).eos_token_id == []
    path.write_text('{"num_beams": 2}')
    with pytest.raises(ValueError, match=r"generation_config\.json.*num_beams"):
        read(tmp_path, model)
