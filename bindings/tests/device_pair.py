"""The same model on the CPU and on a CUDA device, and how near their values have to be."""

from __future__ import annotations

from typing import Any

import numpy as np
from infinilm import LlamaForCausalLM
from tiny import random_state, tiny_config

Array = np.ndarray[Any, Any]

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def pair(device: str = "cuda", **fields: Any) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """The same model on the CPU and on the device."""
    config = tiny_config(**fields)
    state = random_state(config)
    models = LlamaForCausalLM(config), LlamaForCausalLM(config, device=device)
    for model in models:
        model.load_state_dict(state)
    return models


def assert_close(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Within that part of the largest value; -inf where -inf is."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    largest = np.abs(expected[finite]).max(initial=0)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=tolerance * largest)
