"""KV caches of float32, bfloat16 and int8: what they hold, what they round, and that nothing else depends on it."""

from __future__ import annotations

import itertools
from typing import Any

import infinilm
import numpy as np
import pytest
import reference
from infinilm import LlamaForCausalLM, engine
from infinilm.cli import main
from tiny import random_state, tiny_config

DTYPES = ["float32", "bfloat16", "int8"]
PROMPT = np.array([3, 1, 4, 1, 5, 9, 2, 6, 53, 58, 9, 7, 9, 3])


def model_of(seed: int = 0, kv_cache_dtype: str | None = None, **fields: Any) -> LlamaForCausalLM:
    config = tiny_config(max_position_embeddings=300, **fields)
    model = LlamaForCausalLM(config, kv_cache_dtype=kv_cache_dtype)
    model.load_state_dict(random_state(config, seed))
    return model


def long_prompt(tokens: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 61, tokens)


SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one key head, odd head_dim": {
        "num_key_value_heads": 1,
        "head_dim": 10,
        "decoupled_head_dim": True,
    },
    "sliding window": {"sliding_window": 9},
    "q and k norm": {"qk_norm": True, "num_key_value_heads": 4},
}


def test_the_default_is_what_is_computed_in() -> None:
    for dtype in ("float32", "bfloat16"):
        model = model_of(dtype=dtype)
        assert model.kv_cache_dtype == dtype
        assert model.new_cache().dtype() == dtype
    assert model_of(dtype="float16").kv_cache_dtype == "float32"
    assert model_of(dtype="bfloat16", kv_cache_dtype="float32").new_cache().dtype() == "float32"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_option_reaches_every_way_to_a_model(dtype: str, tmp_path: Any) -> None:
    directory = infinilm.sample_model()
    assert model_of(kv_cache_dtype=dtype).kv_cache_dtype == dtype
    assert LlamaForCausalLM.from_pretrained(directory, kv_cache_dtype=dtype).kv_cache_dtype == dtype
    assert infinilm.load(directory, kv_cache_dtype=dtype).model.kv_cache_dtype == dtype
    loaded = engine.LlamaForCausalLM.from_pretrained(directory, kv_cache_dtype=dtype)
    cache = loaded.new_cache(2)
    assert cache.dtype() == dtype
    assert repr(cache) == f"KvCache(lengths=[0, 0], dtype={dtype})"
    assert loaded.new_cache(1, "int8").dtype() == "int8"


@pytest.mark.parametrize("dtype", ["float16", "int32", "uint8"])
def test_a_dtype_that_no_cache_has(dtype: str) -> None:
    text = f"kv_cache_dtype: expected float32, bfloat16 or int8 on the CPU, found {dtype}"
    with pytest.raises(ValueError, match=text):
        LlamaForCausalLM(tiny_config(), kv_cache_dtype=dtype)
    with pytest.raises(ValueError, match=text):
        LlamaForCausalLM.from_pretrained(infinilm.sample_model(), kv_cache_dtype=dtype)
    with pytest.raises(ValueError, match=text):
        model_of().new_cache(1, dtype)
    with pytest.raises(ValueError, match="kv_cache_dtype"):
        LlamaForCausalLM(tiny_config(), kv_cache_dtype="no dtype")


@pytest.mark.parametrize(
    ("dtype", "element", "scales"), [("float32", 4, 0), ("bfloat16", 2, 0), ("int8", 1, 4)]
)
@pytest.mark.parametrize("head_dim", [8, 10, 32])
def test_nbytes(dtype: str, element: int, scales: int, head_dim: int) -> None:
    model = model_of(head_dim=head_dim, decoupled_head_dim=True)
    cache = model.new_cache(2, dtype)
    assert cache.nbytes() == 0
    model.forward(np.stack([long_prompt(65)] * 2), cache)
    per_token = (head_dim + -(-head_dim // 16) * 16) * element + 2 * scales
    layers, kv_heads, sequences, blocks = 2, 2, 2, 2
    assert cache.nbytes() == layers * kv_heads * sequences * blocks * 64 * per_token
    cache.truncate(64, 0)
    assert cache.nbytes() == layers * kv_heads * (sequences * blocks - 1) * 64 * per_token


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_chunks_and_whole_are_the_same_bits(shape: str, dtype: str) -> None:
    model = model_of(**SHAPES[shape])
    ids = long_prompt(150)
    whole = model.forward(ids, model.new_cache(1, dtype)).numpy()
    cache = model.new_cache(1, dtype)
    cuts = [0, 1, 2, 9, 63, 64, 66, 130, 150]
    parts = [model.forward(ids[a:b], cache).numpy() for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert cache.tokens() == ids.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_truncating_forgets_and_goes_on(dtype: str) -> None:
    model = model_of()
    ids = long_prompt(100)
    cache = model.new_cache(1, dtype)
    model.forward(long_prompt(140)[::-1], cache)
    cache.truncate(0)
    model.forward(ids, cache)
    cache.truncate(70)
    again = model.forward(ids[70:], cache).numpy()
    fresh = model.forward(ids, model.new_cache(1, dtype)).numpy()
    np.testing.assert_array_equal(again, fresh[70:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_generation(shape: str, dtype: str) -> None:
    """Ragged, one by one, and without a cache (every step then fills one of the same dtype)."""
    model = model_of(kv_cache_dtype=dtype, **SHAPES[shape])
    prompts = [long_prompt(70), PROMPT, PROMPT[:1]]
    together = model.generate(prompts, max_new_tokens=12)
    for prompt, found in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(found, model.generate(prompt, max_new_tokens=12))
        np.testing.assert_array_equal(
            found, model.generate(prompt, max_new_tokens=12, use_cache=False)
        )


def rounding_hooks(model: LlamaForCausalLM, dtype: str) -> dict[str, np.ndarray]:
    """Rounds keys and values as a cache of `dtype` does, where they go into it; gives what they were."""
    seen = {}
    registry = infinilm.HookRegistry()

    def edit(name: str, tensor: Any, layer: int) -> None:
        values = tensor.numpy()
        seen[name] = values.copy()
        values[...] = reference.kept(values, dtype)

    registry.register_hook("layer#_attention_k_after_rope", edit)
    registry.register_hook("layer#_attention_v_after_reshape", edit)
    model.set_hook_registry(registry)
    return seen


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cache_rounds_keys_and_values_and_nothing_else(shape: str, dtype: str) -> None:
    model = model_of(**SHAPES[shape])
    ids = long_prompt(80)
    exact = model.forward(ids).numpy()
    found = model.forward(ids, model.new_cache(1, dtype)).numpy()
    rounding_hooks(model, dtype)
    expected = model.forward(ids).numpy()
    size = np.max(np.abs(exact))
    assert np.max(np.abs(found - expected)) < 1e-5 * size
    assert np.max(np.abs(found - exact)) > 1e-4 * size


@pytest.mark.parametrize("dtype", DTYPES)
def test_hooks_see_keys_and_values_as_they_go_into_the_cache(dtype: str) -> None:
    """Not as it keeps them; scores and weights are of what it keeps."""
    model = model_of()
    plain = rounding_hooks(model, "float32")
    model.forward(PROMPT)
    expected = dict(plain)
    model.forward(PROMPT, model.new_cache(1, dtype))
    for name in ("layer0_attention_k_after_rope", "layer0_attention_v_after_reshape"):
        np.testing.assert_array_equal(plain[name], expected[name])

    seen = {}
    registry = infinilm.HookRegistry()
    for name in ("q_after_rope", "k_after_rope", "scores"):
        registry.register_hook(
            f"layer0_attention_{name}", lambda name, tensor, layer: seen.update({name: tensor})
        )
    model.set_hook_registry(registry)
    model.forward(PROMPT, model.new_cache(1, dtype))
    q, k, scores = (
        seen[f"layer0_attention_{n}"].numpy() for n in ("q_after_rope", "k_after_rope", "scores")
    )
    kept = reference.kept(k, dtype)
    expected_scores = reference.scores(q, kept, 0, q.shape[-1] ** -0.5)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unfused_attention_reads_the_same_cache(dtype: str) -> None:
    model = model_of()
    ids = long_prompt(90)
    cache = model.new_cache(1, dtype)
    fused = model.forward(ids, model.new_cache(1, dtype)).numpy()
    model.forward(ids[:70], cache)
    registry = infinilm.HookRegistry()
    registry.register_hook("layer#_attention_weights", lambda name, tensor, layer: None)
    model.set_hook_registry(registry)
    unfused = model.forward(ids[70:], cache).numpy()
    np.testing.assert_allclose(unfused, fused[70:], rtol=0, atol=1e-5 * np.max(np.abs(fused)))


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 1e-4), ("int8", 1e-3)])
def test_the_sample_model_hardly_notices(dtype: str, most: float) -> None:
    llm = infinilm.load(infinilm.sample_model(), dtype="float32")
    ids = llm.generate(
        llm.tokenizer.encode("ROMEO:\n"), max_new_tokens=150, seed=1, temperature=1.0
    )

    def log_probabilities(kv_dtype: str) -> np.ndarray:
        logits = llm.model.forward(ids, llm.model.new_cache(1, kv_dtype)).numpy().astype(np.float64)
        return np.log(reference.softmax(logits))

    exact = log_probabilities("float32")
    divergence = np.sum(np.exp(exact) * (exact - log_probabilities(dtype)), axis=-1)
    assert 0 < np.mean(divergence) < most


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "ROMEO:", "--max-new-tokens", "12", "--temperature", "0"]
    assert main([*words, "--kv-cache-dtype", "int8"]) == 0
    assert capsys.readouterr().out.startswith("ROMEO:")
    assert main([*words, "--kv-cache-dtype", "float16"]) == 1
    assert "kv_cache_dtype: expected float32, bfloat16 or int8" in capsys.readouterr().err
