"""LlamaConfig from HuggingFace's config.json."""

from __future__ import annotations

from typing import Any

import pytest
from configs import ROPE, hf
from infinilm import LlamaConfig


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
