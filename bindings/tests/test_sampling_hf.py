"""The sampler against Transformers' own logits processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from infinilm import Tensor, engine

torch = pytest.importorskip("torch")
process = pytest.importorskip("transformers.generation.logits_process")

pytestmark = pytest.mark.hf

RNG = np.random.default_rng(11)
CASES = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 17},
    {"top_k": 10_000},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.8},
    {"temperature": 0.8, "top_k": 100, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 60, "top_p": 0.97, "min_p": 0.03, "repetition_penalty": 1.15},
]


def transformers_probabilities(logits: np.ndarray, tokens: list[int], f: dict[str, Any]) -> Any:
    """What Transformers would draw from: its processors in the order of its `generate`."""
    processors = process.LogitsProcessorList()
    if "repetition_penalty" in f:
        processors.append(process.RepetitionPenaltyLogitsProcessor(f["repetition_penalty"]))
    if "temperature" in f:
        processors.append(process.TemperatureLogitsWarper(f["temperature"]))
    if "top_k" in f:
        processors.append(process.TopKLogitsWarper(f["top_k"]))
    if "top_p" in f:
        processors.append(process.TopPLogitsWarper(f["top_p"]))
    if "min_p" in f:
        processors.append(process.MinPLogitsWarper(f["min_p"]))
    scores = processors(torch.tensor([tokens]), torch.from_numpy(logits)[None].clone())
    return torch.softmax(scores[0], dim=-1).numpy()


@pytest.mark.parametrize("fields", CASES, ids=str)
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_agrees_with_transformers(fields: dict[str, Any], scale: float) -> None:
    logits = RNG.normal(0, scale, 512).astype(np.float32)
    tokens = RNG.integers(0, 512, 30).tolist()
    config = engine.GenerationConfig()
    for name, value in {"do_sample": True, "top_k": 0, **fields}.items():
        setattr(config, name, value)
    found = engine.sampling_probabilities(Tensor.from_numpy(logits), config, tokens, 20).numpy()
    expected = transformers_probabilities(logits, tokens, fields)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_processors_come_in_transformers_order() -> None:
    """The order in which Transformers itself would build them for these settings."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(config)
    own = lambda ids, scores: scores  # noqa: E731
    built = model._get_logits_processor(
        transformers.GenerationConfig(
            do_sample=True, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.2
        ),
        input_ids_seq_length=4,
        logits_processor=[own],
    )
    names = [type(p).__name__ for p in built if p is not own]
    assert built[1] is own
    assert names == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
    ]
