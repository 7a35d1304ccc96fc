"""What of a config.json is refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configs import DEFAULTS, ROPE, SMALL, hf, with_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infinilm import LlamaConfig

SLOW_AND_SHARED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
in_a_folder = settings(deadline=None, suppress_health_check=SLOW_AND_SHARED, max_examples=200)


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
