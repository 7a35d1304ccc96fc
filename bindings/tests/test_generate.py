"""The generation loop of the core: batches, caches, limits, ends, log-probabilities, failures."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from infinilm import HookRegistry, Tensor, engine
from tiny import LONGEST, VOCAB, tiny_model

PROMPTS = [[5, 9, 33], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [60, 0, 60, 0]]
Processor = Callable[[Sequence[int], Any], None]


@pytest.fixture(scope="module")
def model() -> engine.LlamaForCausalLM:
    return tiny_model()


def settings(**fields: Any) -> engine.GenerationConfig:
    config = engine.GenerationConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def start(
    model: Any,
    prompts: Sequence[Sequence[int]],
    processors: Sequence[Processor | None] = (),
    cache: Any = None,
    **fields: Any,
) -> engine.Generation:
    ids = [list(prompt) for prompt in prompts]
    return engine.Generation(model, ids, settings(**fields), list(processors), cache)


def finished(generation: engine.Generation) -> engine.Generation:
    while not generation.done():
        generation.step()
    return generation


def run(model: Any, prompts: Sequence[Sequence[int]], *args: Any, **fields: Any) -> list[list[int]]:
    """Prompts and continuations."""
    generation = finished(start(model, prompts, *args, **fields))
    return [list(generation.tokens(i)) for i in range(generation.size())]


def forward(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """Logits [tokens, V] of one sequence."""
    ids = Tensor.from_numpy(np.asarray(tokens, np.int64))
    return np.array(model.forward(ids, None, 0).numpy())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_greedy_is_the_argmax_of_forward(model: Any) -> None:
    tokens = list(PROMPTS[0])
    for _ in range(12):
        tokens.append(int(forward(model, tokens)[-1].argmax()))
    assert run(model, PROMPTS[:1], max_new_tokens=12) == [tokens]


def test_ragged_batch_gives_what_each_gives_alone(model: Any) -> None:
    fields = {"max_new_tokens": 15, "logprobs": True, "prompt_logprobs": True}
    together = finished(start(model, PROMPTS, **fields))
    for i, prompt in enumerate(PROMPTS):
        alone = finished(start(model, [prompt], **fields))
        assert list(together.tokens(i)) == list(alone.tokens(0))
        np.testing.assert_array_equal(together.logprobs(i), alone.logprobs(0))
        np.testing.assert_array_equal(together.prompt_logprobs(i), alone.prompt_logprobs(0))


def test_sampling_depends_on_seed_and_index_alone(model: Any) -> None:
    fields = {"do_sample": True, "temperature": 2.0, "seed": 9, "max_new_tokens": 20}
    together = run(model, PROMPTS, **fields)
    assert run(model, PROMPTS, **fields) == together
    assert run(model, PROMPTS[:1], **fields) == together[:1]
    assert run(model, [[8, 8], PROMPTS[1]], **fields)[1] == together[1]
    assert run(model, PROMPTS, **{**fields, "seed": 10}) != together
    same = run(model, [PROMPTS[0]] * 2, **fields)
    assert same[0] != same[1]


def test_without_a_seed_runs_differ(model: Any) -> None:
    fields = {"do_sample": True, "temperature": 5.0, "top_k": 0, "max_new_tokens": 30}
    assert run(model, [[1]], **fields) != run(model, [[1]], **fields)


def test_draws_come_from_the_distribution_that_the_sampler_gives(model: Any) -> None:
    fields = {
        "do_sample": True,
        "temperature": 1.5,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "seed": 4,
    }
    tokens = list(PROMPTS[0])
    for _ in range(15):
        logits = Tensor.from_numpy(forward(model, tokens)[-1])
        tokens += engine.sample(logits, settings(**fields), tokens, len(PROMPTS[0]), 1, 0)
    assert run(model, PROMPTS[:1], max_new_tokens=15, **fields) == [tokens]


def test_eos_ids(model: Any) -> None:
    free = run(model, PROMPTS[:1], max_new_tokens=12)[0]
    ends = [free[7], free[5]]
    generation = finished(start(model, PROMPTS[:1], max_new_tokens=12, eos_token_id=ends))
    length = 3 + min(free[3:].index(token) for token in ends) + 1
    assert list(generation.tokens(0)) == free[:length]  # with the id that ended it
    assert generation.finish_reason(0) == "eos"


def test_stop_ids(model: Any) -> None:
    free = run(model, PROMPTS[:1], max_new_tokens=12)[0]
    token = free[5]
    fields: dict[str, Any] = {"max_new_tokens": 12, "stop_token_ids": [token]}
    generation = finished(start(model, PROMPTS[:1], **fields))
    assert list(generation.tokens(0)) == free[: 3 + free[3:].index(token) + 1]
    assert generation.finish_reason(0) == "stop"
    generation = finished(start(model, PROMPTS[:1], eos_token_id=[token], **fields))
    assert generation.finish_reason(0) == "eos"


def test_an_eos_in_the_prompt_does_not_stop(model: Any) -> None:
    found = run(model, [[5, 9, 33]], max_new_tokens=4, eos_token_id=[33, VOCAB + 5])
    assert len(found[0]) > 3


def test_only_unfinished_sequences_run(model: Any) -> None:
    free = run(model, PROMPTS, max_new_tokens=8)
    registry, rows, logits = HookRegistry(), [], []
    registry.register_hook("embed_tokens", lambda name, t, layer: rows.append(t.shape[0]))
    registry.register_hook("logits", lambda name, t, layer: logits.append(t.shape))
    model.set_hook_registry(registry)
    try:
        generation = start(model, PROMPTS, max_new_tokens=8)
        generation.step()
        generation.finish(1, "enough")
        generation.finish(1, "too late")
        finished(generation)
    finally:
        model.set_hook_registry(None)
    assert rows == [sum(map(len, PROMPTS))] + [3] * 7
    assert logits == [(4, VOCAB)] + [(3, VOCAB)] * 7
    assert generation.finish_reason(1) == "enough"
    assert list(generation.tokens(1)) == free[1][:2]
    for i in (0, 2, 3):
        assert list(generation.tokens(i)) == free[i]
        assert generation.finish_reason(i) == "length"


def test_lengths(model: Any) -> None:
    assert len(run(model, [[1, 2]])[0]) == 22  # HF's default: 20 new tokens
    assert len(run(model, [[1, 2]], max_length=9)[0]) == 9
    assert [len(t) for t in run(model, [[1, 2], [1]], max_length=9)] == [9, 9]
    assert len(run(model, [[1, 2]], max_length=3, max_new_tokens=7)[0]) == 9
    assert len(run(model, [[1, 2]], max_new_tokens=2**62)[0]) == LONGEST
    generation = finished(start(model, [[1] * (LONGEST - 1), [1]], max_length=2**62))
    for i in range(2):
        assert len(generation.tokens(i)) == LONGEST
        assert generation.finish_reason(i) == "length"


def test_no_room(model: Any) -> None:
    with pytest.raises(ValueError, match=r"prompt 1 has 64 tokens.*longest sequence is 64"):
        start(model, [[1], [1] * LONGEST])
    with pytest.raises(ValueError, match=r"prompt 0 has 3 tokens.*max_length = 3"):
        start(model, [[1, 2, 3]], max_length=3)
    with pytest.raises(ValueError, match="max_new_tokens"):
        start(model, [[1, 2, 3]], max_new_tokens=0)


def test_a_kept_cache_is_continued(model: Any) -> None:
    cache = model.new_cache(len(PROMPTS))
    first = run(model, PROMPTS, [], cache, max_new_tokens=6)
    assert [cache.length(i) for i in range(4)] == [len(t) - 1 for t in first]
    longer = [[*tokens, i, 3] for i, tokens in enumerate(first)]
    registry, rows = HookRegistry(), []
    registry.register_hook("embed_tokens", lambda name, t, layer: rows.append(t.shape[0]))
    model.set_hook_registry(registry)
    try:
        continued = run(model, longer, [], cache, max_new_tokens=6)
    finally:
        model.set_hook_registry(None)
    assert continued == run(model, longer, max_new_tokens=6)
    assert rows == [4 * 3] + [4] * 5  # the last token of the first run and the two new ones


def test_a_cache_that_holds_the_whole_prompt(model: Any) -> None:
    cache = model.new_cache(1)
    ids = Tensor.from_numpy(np.asarray(PROMPTS[2], np.int64))
    model.forward(ids, cache, 1)
    assert cache.length(0) == len(PROMPTS[2])
    expected = run(model, PROMPTS[2:3], max_new_tokens=6)
    assert run(model, PROMPTS[2:3], [], cache, max_new_tokens=6) == expected


def test_a_cache_that_holds_something_else(model: Any) -> None:
    cache = model.new_cache(1)
    run(model, [[5, 9, 33]], [], cache, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"holds token 9 at position 1, .* has 8"):
        start(model, [[5, 8, 33, 1, 1, 1]], [], cache)
    with pytest.raises(ValueError, match=r"holds 4 tokens for sequence 0, which has only 2"):
        start(model, [[5, 9]], [], cache)
    with pytest.raises(ValueError, match=r"1 slots, but there are 2 prompts"):
        start(model, [[5, 9], [5, 9]], [], cache)
    with pytest.raises(ValueError, match="use_cache"):
        start(model, [[5, 9, 33, 1]], [], model.new_cache(1), use_cache=False)
    cache.truncate(1)
    assert run(model, [[5, 8]], [], cache, max_new_tokens=5) == run(
        model, [[5, 8]], max_new_tokens=5
    )


def test_without_a_cache_the_same_comes_out(model: Any) -> None:
    fields = {"max_new_tokens": 12, "logprobs": True}
    cached = finished(start(model, PROMPTS, **fields))
    recomputed = finished(start(model, PROMPTS, use_cache=False, **fields))
    for i in range(4):
        assert list(recomputed.tokens(i)) == list(cached.tokens(i))
        np.testing.assert_allclose(recomputed.logprobs(i), cached.logprobs(i), atol=1e-4)


@pytest.mark.parametrize("with_cache", [False, True])
def test_logprobs_are_those_of_the_models_own_distribution(model: Any, with_cache: bool) -> None:
    fields = {"do_sample": True, "temperature": 3.0, "repetition_penalty": 1.5, "seed": 1}
    cache = None
    if with_cache:  # what it holds has to be run again for the log-probabilities of the prompt
        cache = model.new_cache(4)
        run(model, [p[:2] for p in PROMPTS], [], cache, max_new_tokens=1)
    generation = finished(
        start(
            model, PROMPTS, [], cache, max_new_tokens=9, logprobs=True, prompt_logprobs=True,
            **fields,
        )
    )  # fmt: skip
    for i, prompt in enumerate(PROMPTS):
        tokens = list(generation.tokens(i))
        own = log_softmax(forward(model, tokens))
        expected = own[np.arange(len(tokens) - 1), tokens[1:]]
        n = len(prompt)
        assert np.isnan(generation.prompt_logprobs(i)[0])
        np.testing.assert_allclose(generation.prompt_logprobs(i)[1:], expected[: n - 1], atol=1e-4)
        np.testing.assert_allclose(generation.logprobs(i), expected[n - 1 :], atol=1e-4)


def test_logprobs_only_when_asked_for(model: Any) -> None:
    generation = finished(start(model, [[1, 2]], max_new_tokens=2))
    assert len(generation.logprobs(0)) == 0
    assert len(generation.prompt_logprobs(0)) == 0


def test_a_processor_for_each_request(model: Any) -> None:
    def only(token: int) -> Processor:
        def process(tokens: Sequence[int], logits: Any) -> None:
            values = logits.numpy()
            values[np.arange(len(values)) != token] = -np.inf

        return process

    free = run(model, PROMPTS, max_new_tokens=5)
    found = run(model, PROMPTS, [only(3), None, only(4), None], max_new_tokens=5)
    assert found == [PROMPTS[0] + [3] * 5, free[1], PROMPTS[2] + [4] * 5, free[3]]
    sampled = run(model, PROMPTS[:1], [only(3)], max_new_tokens=5, do_sample=True, top_k=1)
    assert sampled == [PROMPTS[0] + [3] * 5]


def test_a_processor_sees_tokens_and_penalized_logits(model: Any) -> None:
    seen: list[tuple[list[int], Any]] = []

    def look(tokens: Sequence[int], logits: Any) -> None:
        seen.append((list(tokens), logits))

    expected = run(model, PROMPTS[:1], max_new_tokens=4, repetition_penalty=1.3)[0]
    assert run(model, PROMPTS[:1], [look], max_new_tokens=4, repetition_penalty=1.3) == [expected]
    assert [tokens for tokens, _ in seen] == [expected[: 3 + k] for k in range(4)]
    for tokens, logits in seen:  # kept ones stay as they were
        own = forward(model, tokens)[-1]
        used = sorted(set(tokens))
        own[used] = np.where(own[used] < 0, own[used] * 1.3, own[used] / 1.3)
        np.testing.assert_allclose(logits.numpy(), own, atol=1e-4)


def test_a_processor_cannot_change_the_logprobs(model: Any) -> None:
    def invert(tokens: Sequence[int], logits: Any) -> None:
        logits.numpy()[:] *= -1

    generation = finished(start(model, [[1, 2]], [invert], max_new_tokens=1, logprobs=True))
    own = log_softmax(forward(model, [1, 2]))[-1]
    assert generation.tokens(0)[-1] == own.argmin()
    np.testing.assert_allclose(generation.logprobs(0), [own.min()], atol=1e-4)


class BrokenError(Exception):
    """What the callbacks below raise."""


@pytest.mark.parametrize("fails_at", [0, 1, 5])
@pytest.mark.parametrize("use_cache", [False, True])
def test_a_processor_that_raises_changes_nothing(
    model: Any, fails_at: int, use_cache: bool
) -> None:
    error = BrokenError("stop here")
    state = {"armed": True}

    def fail(tokens: Sequence[int], logits: Any) -> None:
        if state["armed"] and len(tokens) == len(PROMPTS[2]) + fails_at:
            raise error

    fields = {
        "max_new_tokens": 8,
        "do_sample": True,
        "temperature": 2.0,
        "seed": 3,
        "logprobs": True,
        "prompt_logprobs": True,
        "use_cache": use_cache,
    }
    cache = model.new_cache(4) if use_cache else None
    untouched = finished(start(model, PROMPTS, **fields))
    generation = start(model, PROMPTS, [None, None, fail, None], cache, **fields)
    with pytest.raises(BrokenError) as caught:
        finished(generation)
    assert caught.value is error
    for i in range(4):
        assert list(generation.tokens(i)) == list(untouched.tokens(i))[: len(PROMPTS[i]) + fails_at]
        if cache is not None:
            assert cache.length(i) == (len(PROMPTS[i]) + fails_at - 1 if fails_at else 0)
    with pytest.raises(BrokenError):
        generation.step()
    state["armed"] = False
    finished(generation)
    for i in range(4):
        assert list(generation.tokens(i)) == list(untouched.tokens(i))
        np.testing.assert_array_equal(generation.logprobs(i), untouched.logprobs(i))
        np.testing.assert_array_equal(generation.prompt_logprobs(i), untouched.prompt_logprobs(i))


def test_a_hook_that_raises_changes_nothing(model: Any) -> None:
    expected = run(model, PROMPTS, max_new_tokens=8)
    generation = start(model, PROMPTS, max_new_tokens=8)
    registry = HookRegistry()

    def fail(name: str, tensor: Any, layer: int) -> None:
        raise BrokenError(name)

    model.set_hook_registry(registry)
    try:
        for point in ("layer0_input", "layer1_mlp", "logits"):
            registry.register_hook(point, fail)
            with pytest.raises(BrokenError, match=point):
                generation.step()
            registry.clear()
            generation.step()
        finished(generation)
    finally:
        model.set_hook_registry(None)
    assert [list(generation.tokens(i)) for i in range(4)] == expected


def test_logits_that_are_no_numbers(model: Any) -> None:
    def spoil(tokens: Sequence[int], logits: Any) -> None:
        logits.numpy()[7] = np.nan

    generation = start(model, [[1, 2]], [spoil])
    with pytest.raises(RuntimeError, match="token 7 is NaN"):
        generation.step()
    assert list(generation.tokens(0)) == [1, 2]
    assert len(run(model, [[1, 2]], max_new_tokens=2)[0]) == 4


def test_a_step_inside_of_a_step(model: Any) -> None:
    expected = run(model, [[1, 2]], max_new_tokens=4)
    errors = []

    def nested(tokens: Sequence[int], logits: Any) -> None:
        with pytest.raises(RuntimeError, match="inside of a step") as caught:
            generation.step()
        errors.append(caught.value)
        assert run(model, [[1, 2]], max_new_tokens=4) == expected  # another one may run

    generation = start(model, [[1, 2]], [nested], max_new_tokens=4)
    finished(generation)
    assert list(generation.tokens(0)) == expected[0]
    assert len(errors) == 4


def test_finish_from_inside_of_a_step(model: Any) -> None:
    def finish(tokens: Sequence[int], logits: Any) -> None:
        if len(tokens) == 4:
            generation.finish(0, "seen enough")

    generation = start(model, [[1, 2], [1]], [finish, None], max_new_tokens=6)
    finished(generation)
    assert len(generation.tokens(0)) == 4
    assert generation.finish_reason(0) == "seen enough"
    assert len(generation.tokens(1)) == 7


def test_a_finished_generation_does_nothing(model: Any) -> None:
    generation = finished(start(model, [[1, 2]], max_new_tokens=2))
    tokens = list(generation.tokens(0))
    generation.step()
    assert list(generation.tokens(0)) == tokens


def test_wrong_arguments(model: Any) -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        start(model, [])
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        start(model, [[1], []])
    with pytest.raises(ValueError, match="expected 2 logits processors"):
        start(model, [[1], [2]], [None])
    with pytest.raises(ValueError, match="temperature"):
        start(model, [[1]], temperature=-1.0)
    for token in (VOCAB, -1, 2**62):
        generation = start(model, [[1], [token]])
        with pytest.raises(IndexError, match=str(token)):
            generation.step()
    generation = start(model, [[1]])
    with pytest.raises(IndexError, match="sequence 1 of 1"):
        generation.tokens(1)
    with pytest.raises(IndexError, match="sequence 1 of 1"):
        generation.finish(1, "x")
    with pytest.raises(ValueError, match="reason"):
        generation.finish(0, "")


def test_an_interrupt_stops_a_step_and_leaves_it_as_it_was() -> None:
    """A signal handler that raises, as Ctrl-C's does, during a long prefill and during decoding."""
    model = tiny_model(num_hidden_layers=8, max_position_embeddings=4096)
    prompt = (np.arange(3000) % VOCAB).tolist()
    expected = run(model, [prompt], max_new_tokens=30)

    def stop(signum: int, frame: Any) -> None:
        raise BrokenError("stop")

    def run_on_and_on(generations: list[engine.Generation]) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        while True:  # so that the signal comes during a run, however fast that is
            finished(generations[-1])
            generations.append(start(model, [prompt], max_new_tokens=30))

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        for prefilled in (False, True):
            generations = [start(model, [prompt], max_new_tokens=30)]
            if prefilled:
                generations[0].step()
            with pytest.raises(BrokenError):
                run_on_and_on(generations)
            for generation in generations[-2:]:
                finished(generation)
                assert list(generation.tokens(0)) == expected[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert run(model, [prompt], max_new_tokens=30) == expected


def test_a_cache_outlives_its_model_and_serves_no_other() -> None:
    """Also not one that comes to lie at the same address."""
    for _ in range(200):
        cache = tiny_model().new_cache(1)
        other = tiny_model(num_key_value_heads=4, head_dim=8)
        generation = start(other, [[1, 2]], [], cache)
        with pytest.raises(ValueError, match="another model"):
            generation.step()
        assert cache.length(0) == 0
