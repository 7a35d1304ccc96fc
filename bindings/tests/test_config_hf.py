"""The same meaning as Transformers: of files of every kind, and of what ``save_pretrained`` writes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from infinilm import GenerationConfig, LlamaConfig

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.hf

SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "model_type",
    "use_cache",
    "tie_word_embeddings",
    "pad_token_id",
    "initializer_range",
    "attention_dropout",
)
ROPE_KEYS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
)


def ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def theirs(folder: Path) -> dict[str, Any]:
    """What Transformers makes of ``folder``, in our fields."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.standardize_rope_params()
    kind, rope = config.model_type, config.rope_parameters
    layers = set(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None) if kind != "llama" else None
    if kind.startswith("qwen") and layers != {"sliding_attention"}:
        window = None if layers == {"full_attention"} else "mixed"
    bias = (
        getattr(config, "attention_bias", False) if kind in ("llama", "qwen3") else kind == "qwen2"
    )
    head_dim = getattr(config, "head_dim", None)
    return {
        **{name: getattr(config, name) for name in SAME},
        "head_dim": head_dim or config.hidden_size // config.num_attention_heads,
        "bos_token_id": ids(config.bos_token_id),
        "eos_token_id": ids(config.eos_token_id),
        "attention_bias": bias,
        "attention_output_bias": bias and kind != "qwen2",
        "mlp_bias": kind == "llama" and config.mlp_bias,
        "qk_norm": kind == "qwen3",
        "sliding_window": window,
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
        "rope_theta": rope["rope_theta"],
        "rope": rope_of(rope, config.max_position_embeddings),
    }


def ours(folder: Path) -> dict[str, Any]:
    config = LlamaConfig.from_pretrained(folder)
    fields = {name: getattr(config, name) for name in theirs(folder) if name != "rope"}
    rope = config.rope_scaling or {"rope_type": "default"}
    return {
        **fields,
        "dtype": str(config.dtype),
        "rope": rope_of(rope, config.max_position_embeddings),
    }


def rope_of(rope: dict[str, Any], length: int) -> dict[str, Any]:
    if rope["rope_type"] == "default":
        return {}
    scaled = rope["rope_type"] in ("llama3", "yarn", "longrope")
    original = rope.get("original_max_position_embeddings", length) if scaled else None
    return {"type": rope["rope_type"], "length": original, **{k: rope.get(k) for k in ROPE_KEYS}}


def random_rope(rng: random.Random, head_dim: int) -> dict[str, Any]:
    kind = rng.choice(["default", "linear", "dynamic", "llama3", "yarn", "longrope"])
    rope: dict[str, Any] = {rng.choice(["rope_type", "type"]): kind}
    if kind in ("linear", "dynamic", "llama3", "yarn"):
        rope["factor"] = rng.choice([2.0, 4, 8.5])
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "yarn":
        options = {"beta_fast": 16.0, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.0}
        options |= {"attention_factor": 1.2, "truncate": False}
        rope |= {k: v for k, v in options.items() if rng.random() < 0.4}
    if kind == "longrope":
        half = head_dim // 2
        rope |= {"short_factor": [1.0] * half, "long_factor": [1.5] * half}
    if kind in ("llama3", "yarn", "longrope") and rng.random() < 0.6:
        rope["original_max_position_embeddings"] = rng.choice([128, 256])
    if rng.random() < 0.5:
        rope["rope_theta"] = 500000.0
    return rope


def random_file(rng: random.Random) -> dict[str, Any]:
    """A config.json with any of the keys, in any of the spellings, there or not."""
    kind = rng.choice(["llama", "mistral", "qwen2", "qwen3"])
    heads, head_dim = rng.choice([2, 4, 8]), rng.choice([8, 16, 64])
    choices: dict[str, list[Any]] = {
        "num_key_value_heads": [1, 2, heads],
        "head_dim": [head_dim],
        "vocab_size": [97, 32000],
        "intermediate_size": [172],
        "num_hidden_layers": [1, 2, 4],
        "max_position_embeddings": [512, 4096],
        "rms_norm_eps": [1e-5],
        "hidden_act": ["silu", "gelu", "gelu_new", "relu", "swish", "gelu_pytorch_tanh"],
        "attention_bias": [True, False],
        "mlp_bias": [True, False],
        "tie_word_embeddings": [True, False],
        "use_cache": [True, False],
        "bos_token_id": [None, 1, 7],
        "eos_token_id": [None, 2, [2, 3], []],
        "pad_token_id": [None, 0, -1],
        "torch_dtype": ["float32", "bfloat16", "float16", None],
        "dtype": ["float32", "bfloat16"],
        "sliding_window": [None, 16, 4096],
        "rope_theta": [10000, 1e6],
        "my_key": [{"a": [1, None]}],
    }
    if kind.startswith("qwen"):
        choices |= {"use_sliding_window": [True, False], "max_window_layers": [0, 2, 28, 64]}
    file = {k: rng.choice(v) for k, v in choices.items() if rng.random() < 0.5}
    file |= {"model_type": kind, "hidden_size": heads * head_dim, "num_attention_heads": heads}
    if rng.random() < 0.7:
        width = file.get("head_dim", 128 if kind == "qwen3" else head_dim)
        file[rng.choice(["rope_scaling", "rope_parameters"])] = random_rope(rng, width)
        if rng.random() < 0.2:
            file["original_max_position_embeddings"] = 300
    return file


@pytest.mark.parametrize("seed", range(150))
def test_files_mean_the_same(tmp_path: Path, seed: int) -> None:
    file = random_file(random.Random(seed))
    (tmp_path / "config.json").write_text(json.dumps(file))
    expected = theirs(tmp_path)
    if expected["sliding_window"] == "mixed":
        with pytest.raises(ValueError, match="max_window_layers"):
            LlamaConfig.from_pretrained(tmp_path)
        return
    assert ours(tmp_path) == expected

    config = LlamaConfig.from_pretrained(tmp_path)
    if config.validate():
        config.save_pretrained(tmp_path / "saved")
        assert theirs(tmp_path / "saved") == expected
        assert LlamaConfig.from_pretrained(tmp_path / "saved") == config


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_what_transformers_saves_is_read(tmp_path: Path, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    )
    config.save_pretrained(tmp_path)
    assert ours(tmp_path) == theirs(tmp_path)
    transformers.GenerationConfig(do_sample=True, top_k=7, eos_token_id=[3, 4]).save_pretrained(
        tmp_path
    )
    read = GenerationConfig.from_pretrained(tmp_path, LlamaConfig.from_pretrained(tmp_path))
    assert (read.do_sample, read.top_k, read.eos_token_id) == (True, 7, [3, 4])


def test_what_transformers_reads_of_a_generation_config_of_ours(tmp_path: Path) -> None:
    config = GenerationConfig(temperature=0.5, top_p=0.9, do_sample=True, eos_token_id=[3])
    (tmp_path / "generation_config.json").write_text(config.to_json())
    read = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (read.temperature, read.top_p, read.do_sample) == (0.5, 0.9, True)
    assert read.eos_token_id == [3]
