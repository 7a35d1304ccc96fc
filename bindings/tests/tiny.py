"""Tiny models with random weights for the tests, made through the engine's own interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from infinilm import LlamaConfig, Tensor, engine

VOCAB = 61
LONGEST = 64


def tiny_config(**fields: Any) -> LlamaConfig:
    """Two layers, grouped-query attention, no end-of-sequence id; ``fields`` override."""
    defaults = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LONGEST,
        "attention_bias": False,
        "eos_token_id": [],
    }
    return LlamaConfig(**{**defaults, **fields})


def random_state(config: LlamaConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under their HF names, of a size that gives logits of a few units."""
    rng = np.random.default_rng(seed)
    state = {}
    for parameter in engine.parameters(config):
        shape = tuple(parameter.shape)
        if parameter.name.endswith("norm.weight"):
            values = 1 + 0.2 * rng.normal(size=shape)
        elif len(shape) == 1:
            values = 0.1 * rng.normal(size=shape)
        else:
            values = rng.normal(size=shape) * 1.5 / np.sqrt(shape[1])
        state[parameter.name] = values.astype(np.float32)
    return state


def tiny_model(seed: int = 0, **fields: Any) -> engine.LlamaForCausalLM:
    """An engine model with random weights; ``fields`` are those of its config."""
    config = tiny_config(**fields)
    model = engine.LlamaForCausalLM(config)
    state = random_state(config, seed)
    model.load_state_dict({name: Tensor.from_numpy(values) for name, values in state.items()})
    return model
