"""Sizes of models to measure, and what a token costs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The sizes that decide how much there is to read and to compute."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False
    rope_theta: float = 10000.0
    longest: int = 8192

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden // self.heads

    def config(self, dtype: str) -> dict[str, Any]:
        """What config.json says; no end-of-sequence id, so that every run has its full length."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": dtype,
            "torch_dtype": dtype,
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.longest,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 1,
            "eos_token_id": None,
        }


SHAPES = {
    "tiny": Shape(64, 160, 2, 4, 2, 256),
    "150m": Shape(768, 2048, 12, 12, 4, 32000),
    "1b": Shape(2048, 8192, 16, 32, 8, 128256, tied=True, rope_theta=500000.0),
    "3b": Shape(3072, 8192, 28, 24, 8, 128256, tied=True, rope_theta=500000.0),
    "8b": Shape(4096, 14336, 32, 32, 8, 128256, rope_theta=500000.0),
}


def layer_parameters(config: Any) -> int:
    """Parameters of the matrices of all layers: each costs a multiplication and an addition for each token."""
    hidden = config.hidden_size
    attention = 2 * hidden * (config.num_attention_heads * config.head_dim + config.kv_dim())
    return int(config.num_hidden_layers * (attention + 3 * hidden * config.intermediate_size))


def head_parameters(config: Any) -> int:
    """Parameters of the output matrix, which runs for the tokens that are sampled."""
    return int(config.vocab_size * config.hidden_size)
