"""Every model option against Transformers in float32: logits, greedy tokens, every hook point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hf_models import (
    CASES,
    LENGTH_DEPENDENT,
    WRONGLY_CACHED,
    decoded_logits,
    every_value,
    load_reference,
    logits_of,
    make_checkpoint,
)

pytestmark = [pytest.mark.hf, pytest.mark.filterwarnings("default")]

TOLERANCE = 2e-5  # of the largest entry, the contract's
RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(0, 97, n).tolist() for n in (21, 1, 13, 30)]
BATCH = [PROMPTS[0], RNG.integers(0, 97, 21).tolist()]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories by case, written when first asked for."""

    class Directories(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = make_checkpoint(name, tmp_path_factory.mktemp(name))
            return self[name]

    return Directories()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(case: str, checkpoints: dict[str, Path]) -> infinilm.LlamaForCausalLM:
    return infinilm.LlamaForCausalLM.from_pretrained(str(checkpoints[case]), dtype="float32")


@pytest.fixture
def reference(case: str, checkpoints: dict[str, Path]) -> Any:
    return load_reference(checkpoints[case])


def assert_close(found: Any, expected: np.ndarray, what: str = "") -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, what
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected), err_msg=what)
    finite = np.isfinite(expected)
    bound = TOLERANCE * np.abs(expected[finite]).max(initial=0)
    worst = np.abs(found[finite] - expected[finite]).max(initial=0)
    assert worst <= bound, f"{what}: off by {worst:.3g}, allowed are {bound:.3g}"


def forward(model: Any, ids: Any, cache: Any = None) -> np.ndarray:
    return np.asarray(model.forward(np.asarray(ids, np.int64), cache=cache))


def test_logits(case: str, model: Any, checkpoints: dict[str, Path]) -> None:
    for prompt in PROMPTS:
        # Freshly loaded: dynamic RoPE in Transformers remembers the longest sequence that it saw.
        reference = load_reference(checkpoints[case])
        assert_close(forward(model, prompt), logits_of(reference, prompt))


def test_logits_of_a_rectangular_batch(model: Any, reference: Any) -> None:
    found = forward(model, BATCH)
    assert_close(found, logits_of(reference, BATCH))
    for row, ids in zip(found, BATCH, strict=True):
        np.testing.assert_array_equal(row, forward(model, ids))


def test_greedy_tokens(case: str, model: Any, checkpoints: dict[str, Path]) -> None:
    """Each is Transformers' choice, where its two best are further apart than the tolerance."""
    together = model.generate(PROMPTS, max_new_tokens=14, do_sample=False)
    for prompt, tokens in zip(PROMPTS, together, strict=True):
        tokens = np.asarray(tokens).tolist()
        continuation = tokens[len(prompt) :]
        assert tokens[: len(prompt)] == prompt
        assert len(continuation) == 14
        reference = load_reference(checkpoints[case])
        if case in WRONGLY_CACHED:
            rows = logits_of(reference, tokens)[len(prompt) - 1 : -1]
        else:
            rows = decoded_logits(reference, prompt, continuation)
        bound = TOLERANCE * np.abs(rows).max(-1)
        assert (rows[np.arange(14), continuation] >= rows.max(-1) - 2 * bound).all()
        alone = model.generate(prompt, max_new_tokens=14, do_sample=False)
        assert np.asarray(alone).tolist() == tokens


def test_prefill_is_decode(case: str, model: Any, reference: Any) -> None:
    """In chunks over a cache as in one go."""
    if case in LENGTH_DEPENDENT:
        pytest.skip("its rotation follows the length so far: by definition not the same")
    ids = PROMPTS[3]
    cache = model.new_cache()
    found = [forward(model, ids[a:b], cache) for a, b in [(0, 17), (17, 18), (18, 25), (25, 30)]]
    assert_close(np.concatenate(found), logits_of(reference, ids))


def test_dynamic_rope_decodes_as_transformers(checkpoints: dict[str, Path]) -> None:
    """Token by token past the original length, each step with its own base."""
    directory = checkpoints["rope_dynamic_long"]
    model = infinilm.LlamaForCausalLM.from_pretrained(str(directory), dtype="float32")
    prompt, rest = PROMPTS[3][:8], PROMPTS[3][8:]
    cache = model.new_cache()
    found = [forward(model, prompt, cache)[-1]]
    found += [forward(model, [token], cache)[-1] for token in rest[:-1]]
    assert_close(np.stack(found), decoded_logits(load_reference(directory), prompt, rest))


def test_longrope_decodes_across_the_original_length(checkpoints: dict[str, Path]) -> None:
    directory = checkpoints["rope_longrope_long"]
    model = infinilm.LlamaForCausalLM.from_pretrained(str(directory), dtype="float32")
    prompt, rest = PROMPTS[3][:5], PROMPTS[3][5:]
    cache = model.new_cache()
    found = [forward(model, prompt, cache)[-1]]
    found += [forward(model, [token], cache)[-1] for token in rest[:-1]]
    assert_close(np.stack(found), decoded_logits(load_reference(directory), prompt, rest))


def test_every_hook_point(model: Any, reference: Any) -> None:
    registry = infinilm.HookRegistry()
    found: dict[str, np.ndarray] = {}
    points = [point.name for point in model.hook_points()]

    def keep(name: str, tensor: Any, layer_idx: int) -> None:
        found[name] = np.array(tensor)

    for point in points:
        registry.register_hook(point, keep)
    model.set_hook_registry(registry)
    logits = forward(model, BATCH)
    expected = every_value(reference, BATCH)
    assert sorted(found) == sorted(points) == sorted(expected)
    for point in points:
        assert_close(found[point], expected[point], point)
    assert_close(logits, expected["logits"])


def test_looking_changes_nothing(model: Any) -> None:
    """The same bits, but where a hook on the weights asks for the other form of attention."""
    plain = forward(model, BATCH)
    registry = infinilm.HookRegistry()
    model.set_hook_registry(registry)
    for point in model.hook_points():
        if not point.name.endswith(("_scores", "_weights")):
            registry.register_hook(point.name, lambda name, tensor, layer_idx: None)
    np.testing.assert_array_equal(forward(model, BATCH), plain)
    registry.register_hook("*_weights", lambda name, tensor, layer_idx: None)
    assert_close(forward(model, BATCH), plain)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "sharded_bfloat16_tied"])
def test_stored_dtypes_are_widened_exactly(name: str, checkpoints: dict[str, Path]) -> None:
    model = infinilm.LlamaForCausalLM.from_pretrained(str(checkpoints[name]), dtype="float32")
    state = load_reference(checkpoints[name]).state_dict()
    own = model.state_dict()
    for key, values in own.items():
        widened = np.asarray(values).astype(np.float32)
        np.testing.assert_array_equal(widened, state[key].numpy(), err_msg=key)


def greedy_agreement(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    same = [np.argmax(a, -1) == np.argmax(b, -1) for a, b in zip(found, expected, strict=True)]
    return float(np.concatenate(same).mean())


@pytest.mark.parametrize("name", ["bfloat16", "sharded_bfloat16_tied", "old_layout_bfloat16"])
def test_bfloat16_arithmetic_is_near(name: str, checkpoints: dict[str, Path]) -> None:
    """Only the inputs of matrix products are rounded, by 2^-9: a few percent after two layers."""
    model = infinilm.LlamaForCausalLM.from_pretrained(str(checkpoints[name]))
    reference = load_reference(checkpoints[name])
    found = [forward(model, prompt) for prompt in PROMPTS]
    expected = [logits_of(reference, prompt) for prompt in PROMPTS]
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() <= 0.05 * np.abs(b).max()
    assert greedy_agreement(found, expected) >= 0.9
