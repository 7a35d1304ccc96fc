"""Configs for tests: what the fields are by default, and small files of HuggingFace's."""

from __future__ import annotations

import json
from typing import Any

from infinilm import DataType, LlamaConfig

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


def hf(**changes: Any) -> LlamaConfig:
    """A small HF file with some keys other than usual; None leaves one out, "null" says null."""
    fields = {**SMALL, **changes}
    kept = {k: None if v == "null" else v for k, v in fields.items() if v is not None}
    return LlamaConfig.from_dict(kept)


def with_text(key: str, text: str) -> str:
    """A small HF file as text, in which ``key`` has exactly this value."""
    fields = {k: v for k, v in SMALL.items() if k != key}
    return json.dumps(fields)[:-1] + f', "{key}": {text}}}'
