"""The sampler alone against a NumPy reference: penalties, warpers and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from infinilm import Tensor, engine

INF = float("inf")


def settings(**fields: Any) -> engine.GenerationConfig:
    """A config that samples from the whole vocabulary unless ``fields`` say otherwise."""
    config = engine.GenerationConfig()
    for name, value in {"do_sample": True, "top_k": 0, **fields}.items():
        setattr(config, name, value)
    return config


def probabilities(
    logits: Any, tokens: Sequence[int] = (), prompt_length: int = 0, **fields: Any
) -> np.ndarray:
    """What the engine would draw from, as float32 [V]."""
    tensor = Tensor.from_numpy(np.asarray(logits, np.float32))
    result = engine.sampling_probabilities(tensor, settings(**fields), list(tokens), prompt_length)
    return np.array(result.numpy())


def draws(logits: Any, count: int, stream: int = 0, **fields: Any) -> np.ndarray:
    """``count`` token ids of the engine."""
    tensor = Tensor.from_numpy(np.asarray(logits, np.float32))
    return np.array(engine.sample(tensor, settings(**fields), [], 0, count, stream))


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def penalized(logits: np.ndarray, tokens: Sequence[int], prompt_length: int, f: dict) -> np.ndarray:
    x = logits.astype(np.float64)
    repetition = f.get("repetition_penalty", 1.0)
    for token in set(tokens):
        x[token] = x[token] * repetition if x[token] < 0 else x[token] / repetition
    generated = list(tokens[prompt_length:])
    for token in set(generated):
        x[token] -= f.get("presence_penalty", 0.0)
        x[token] -= f.get("frequency_penalty", 0.0) * generated.count(token)
    return x


def reference(
    logits: Any, tokens: Sequence[int] = (), prompt_length: int = 0, **fields: Any
) -> np.ndarray:
    """The same in float64: HF's order, a removed token has the logit -inf."""
    x = penalized(np.asarray(logits, np.float32), tokens, prompt_length, fields)
    x = x / fields.get("temperature", 1.0)
    top_k = fields.get("top_k", 0)
    if 0 < top_k < len(x):
        x[x < np.sort(x)[-top_k]] = -INF
    order = np.argsort(-x, kind="stable")
    before = np.cumsum(softmax(x)[order]) - softmax(x)[order]
    if fields.get("top_p", 1.0) < 1:
        x[order[before >= fields["top_p"]]] = -INF
    p = softmax(x)
    p[p < fields.get("min_p", 0.0) * p.max()] = 0
    return p / p.sum()


RANDOM = np.random.default_rng(7).normal(0, 3, 1000).astype(np.float32)
TOKENS = [3, 14, 15, 92, 65, 35, 14, 14, 3, 999]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 2.5},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 1000},
        {"top_k": 5000},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"top_p": 0.3, "temperature": 5.0},
        {"min_p": 0.05},
        {"min_p": 0.5},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.7},
        {"presence_penalty": 1.5},
        {"presence_penalty": -1.5},
        {"frequency_penalty": 0.4},
        {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
        {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1},
    ],
    ids=str,
)
def test_agrees_with_numpy(fields: dict[str, Any]) -> None:
    expected = reference(RANDOM, TOKENS, 4, **fields)
    found = probabilities(RANDOM, TOKENS, 4, **fields)
    np.testing.assert_array_equal(found > 0, expected.astype(np.float32) > 0)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-38)


def test_penalties_spare_what_they_should() -> None:
    logits = np.zeros(4, np.float32)
    # Presence and frequency count the continuation alone, repetition the prompt too.
    np.testing.assert_allclose(
        probabilities(logits, [0, 0, 1, 1], 2, frequency_penalty=1.0, presence_penalty=0.5),
        softmax(np.array([0, -2.5, 0, 0])),
        rtol=1e-6,
    )
    logits = np.array([2, -2, 2, -2], np.float32)
    np.testing.assert_allclose(
        probabilities(logits, [0, 1, 0, 1], 4, repetition_penalty=2.0),
        softmax(np.array([1, -4, 2, -2])),  # once each, however often they came
        rtol=1e-6,
    )


def test_penalties_ignore_ids_outside_of_the_vocabulary() -> None:
    found = probabilities([0, 0], [5, -1, 1], 0, presence_penalty=1.0, repetition_penalty=1.5)
    np.testing.assert_allclose(found, softmax(np.array([0, -1.0])), rtol=1e-6)


def test_ties() -> None:
    logits = [1, 3, 3, 3, 0]
    # All that equal the k-th stay, as in Transformers; of equals top-p keeps the first.
    np.testing.assert_allclose(probabilities(logits, top_k=2), [0, 1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(probabilities(logits, top_p=1e-9), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(probabilities(logits, min_p=1.0), [0, 1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(probabilities(logits, do_sample=False), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(probabilities(logits, temperature=0.0), [0, 1, 0, 0, 0])


def test_excluded_tokens_stay_excluded() -> None:
    logits = [-INF, 1.0, -INF, 1.0]
    for fields in ({}, {"top_k": 3}, {"top_p": 0.999}, {"min_p": 0.0}, {"temperature": 100.0}):
        np.testing.assert_allclose(probabilities(logits, **fields), [0, 0.5, 0, 0.5])
    assert set(draws(logits, 1000, seed=1)) == {1, 3}


@pytest.mark.parametrize("temperature", [1e-30, 1e-300, 5e-324])
def test_tiny_temperature_is_greedy(temperature: float) -> None:
    found = probabilities([50.0, 70.0, 69.99], temperature=temperature)
    np.testing.assert_array_equal(found, [0, 1, 0])


def test_huge_temperature_is_uniform() -> None:
    np.testing.assert_allclose(probabilities([1.0, -80, 3], temperature=1e30), np.full(3, 1 / 3))


def test_one_token_vocabulary() -> None:
    np.testing.assert_array_equal(probabilities([-3.0], top_k=5, top_p=0.1, min_p=1.0), [1])


def test_flat_distribution_over_a_large_vocabulary() -> None:
    logits = np.zeros(50_000, np.float32)
    found = probabilities(logits, top_p=0.5)
    assert (found > 0).sum() == 25_000
    assert (found[:25_000] > 0).all()


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize(
    ("logits", "message"),
    [([0.0, np.nan, 1.0], "token 1 is NaN"), ([np.nan], "token 0 is NaN"), ([-INF, -INF], "-inf")],
)
def test_no_distribution(logits: list[float], message: str, do_sample: bool) -> None:
    with pytest.raises(RuntimeError, match=message):
        probabilities(logits, do_sample=do_sample)


def test_infinite_logit() -> None:
    # Greedy search can be forced that way, as in Transformers; a distribution it is not.
    np.testing.assert_array_equal(probabilities([0, INF, 1], do_sample=False), [0, 1, 0])
    with pytest.raises(RuntimeError, match=r"\+inf"):
        probabilities([0, INF, 1])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"shape \(V,\), found \(2, 3\)"):
        probabilities(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(V,\), found \(0,\)"):
        probabilities([])
    with pytest.raises(ValueError, match="float32, found float64"):
        engine.sampling_probabilities(Tensor.from_numpy(np.zeros(3)), settings(), [], 0)
    with pytest.raises(ValueError, match="prompt_length is 3"):
        probabilities([0, 1], [1, 1], 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", np.nan),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", np.inf),
        ("presence_penalty", np.nan),
        ("frequency_penalty", np.inf),
    ],
)
def test_settings_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        probabilities([0, 1], **{field: float(value)})


def test_logits_may_be_strided_and_stay_unchanged() -> None:
    logits = np.array([3.0, 9, 1, 9, 2, 9], np.float32)
    tensor = Tensor.from_numpy(logits[::2])
    config = settings(repetition_penalty=2.0)
    found = engine.sampling_probabilities(tensor, config, [0], 1).numpy()
    np.testing.assert_allclose(found, softmax(np.array([1.5, 1, 2])), rtol=1e-6)
    np.testing.assert_array_equal(logits, [3, 9, 1, 9, 2, 9])


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.8}])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_draws_follow_the_distribution(fields: dict[str, Any], seed: int) -> None:
    logits = np.array([0.3, -1.0, 1.2, 0.0, 0.9, -2.0, 0.5, -0.2])
    count = 20_000
    expected = reference(logits, **fields) * count
    found = np.bincount(draws(logits, count, seed=seed, **fields), minlength=8)
    assert (found[expected == 0] == 0).all()
    kept = expected > 0
    chi_square = ((found - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi_square < 30  # of 7 degrees of freedom: passed by chance once in 10,000


def test_draws_are_independent_of_one_another() -> None:
    pairs = draws(np.zeros(4), 40_000, seed=3).reshape(-1, 2)
    found = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16)
    assert (((found - 1250) ** 2) / 1250).sum() < 45  # 15 degrees of freedom


def test_same_seed_same_tokens() -> None:
    logits = np.zeros(1000)
    first = draws(logits, 50, seed=42)
    np.testing.assert_array_equal(draws(logits, 50, seed=42), first)
    assert (draws(logits, 50, seed=43) != first).mean() > 0.9
    assert (draws(logits, 50, seed=42, stream=1) != first).mean() > 0.9
    assert (draws(logits, 50) != draws(logits, 50)).mean() > 0.9  # no seed: others each time


def test_seeds_mean_the_same_on_every_machine() -> None:
    # Philox4x32-10 keyed with the seed, counter (position, stream); 53 bits of it over 2**53.
    assert draws(np.zeros(1024), 6, seed=42).tolist() == [479, 334, 674, 686, 859, 300]
    assert draws(np.zeros(1024), 6, seed=42, stream=7).tolist() == [917, 384, 960, 505, 171, 938]


def test_draws_continue_by_position() -> None:
    """The k-th token of a run is the k-th draw of its stream, whatever the prompt."""
    logits = Tensor.from_numpy(np.zeros(1000, np.float32))
    config = settings(seed=5)
    whole = list(engine.sample(logits, config, [1, 2], 2, 6, 0))
    assert list(engine.sample(logits, config, [1, 2, 9, 9], 2, 4, 0)) == whole[2:]
    assert list(engine.sample(logits, config, [8, 9, 9], 1, 4, 0)) == whole[2:]
