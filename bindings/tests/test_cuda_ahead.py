"""Generation asks a CUDA device for the next step before it knows the tokens of this one: nobody can tell.

Skipped, with the reason, where there is no such device. What such a pass is: core/tests/test_ahead.cpp.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_pair import IDS, pair
from devices import IS_GUARDED, needs_cuda
from infinilm import HookRegistry, LlamaForCausalLM, Tensor, current_step, engine
from tiny import VOCAB, random_state, tiny_config

pytestmark = [needs_cuda, pytest.mark.filterwarnings("ignore:cuBLASLt")]

PROMPTS = [IDS, [7, 8], [9], [4, 4, 4]]
DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 4}


def both(run: Callable[[LlamaForCausalLM], Any], **fields: Any) -> Any:
    """What a run gives on the device, which has to be what it gives on the CPU."""
    expected, found = (run(model) for model in pair(**fields))
    assert found == expected
    return found


@pytest.mark.skipif(not IS_GUARDED, reason="only the guarded plug-in counts such steps")
def test_when_steps_are_asked_for_so() -> None:
    count = ctypes.CDLL(os.environ["INFINILM_CUDA_PLUGIN"]).infinilm_steps_ahead
    count.restype = ctypes.c_int64
    _, model = pair(max_position_embeddings=256)

    def steps(new: int, **options: Any) -> int:
        """Of a generation that finds its steps recorded."""
        model.generate(IDS, max_new_tokens=new, **options)
        before = count()
        model.generate(IDS, max_new_tokens=new, **options)
        return int(count() - before)

    assert steps(40) == 39  # all but the prompt
    assert steps(40, **DRAWN) == 39
    free = model.generate(IDS, max_new_tokens=100)
    never = next(t for t in range(VOCAB) if t not in free)
    assert steps(64, eos_token_id=[never]) == 0
    assert 20 < steps(100, eos_token_id=[never]) < 36
    for needs_tokens in (
        {"repetition_penalty": 1.1},
        {"logprobs": True},
        {"logits_processor": lambda tokens, logits: None},
        {"use_cache": False},
    ):
        assert steps(40, **needs_tokens) == 0


@pytest.mark.parametrize("options", [{}, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
def test_sequences_that_end_one_by_one(options: dict[str, Any], kv_dtype: str) -> None:
    config = engine.GenerationConfig(max_new_tokens=30, eos_token_id=[])
    for name, value in options.items():
        setattr(config, name, value)

    def run(model: LlamaForCausalLM) -> Any:
        cache = model.new_cache(len(PROMPTS), dtype=kv_dtype)
        generation = engine.Generation(model._engine, PROMPTS, config, [], cache)
        while not generation.done():
            generation.step()
            for i in range(len(PROMPTS)):
                if len(generation.tokens(i)) == len(PROMPTS[i]) + 5 * i + 7:
                    generation.finish(i, "enough")
        return [list(generation.tokens(i)) for i in range(len(PROMPTS))]

    tokens = both(run)
    assert [len(ids) for ids in tokens] == [len(p) + 5 * i + 7 for i, p in enumerate(PROMPTS)]


def test_an_end_after_many_tokens() -> None:
    """A step that was asked for in vain, since the sequence had ended, is nobody's."""

    def run(model: LlamaForCausalLM) -> Any:
        options: dict[str, Any] = {"max_new_tokens": 120, **DRAWN}
        free = model.generate(IDS, **options).tolist()
        end = next(t for t in free[len(IDS) + 80 :] if t not in free[: len(IDS) + 80])
        return [model.generate(IDS, eos_token_id=[end], **options).tolist() for _ in range(3)]

    tokens = both(run, max_position_embeddings=256, vocab_size=401)
    assert len(tokens[0]) > len(IDS) + 80


def test_generations_in_turn() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        streams = [model.stream(p, max_new_tokens=20, **DRAWN) for p in PROMPTS]
        return [[next(s) for s in streams] for _ in range(20)]

    both(run)


def test_a_hook_between_two_tokens_takes_effect_at_once() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        registry = HookRegistry()
        model.set_hook_registry(registry)
        seen = []

        def edit(name: str, tensor: Tensor, layer: int) -> None:
            seen.append((current_step().step, tensor.numpy().shape))
            tensor.copy_from(-np.array(tensor.numpy()))

        tokens = []
        for i, token in enumerate(model.stream(IDS, max_new_tokens=24)):
            tokens.append(token)
            if i in (8, 16):
                handle = registry.register_hook("layer0_output", edit)
            if i in (9, 18):
                handle.remove()
        return tokens, seen

    _, seen = both(run)
    assert [step for step, _ in seen] == [9, 17, 18]


def test_captures_between_two_tokens() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        registry = HookRegistry()
        model.set_hook_registry(registry)
        steps = []
        for turn in range(3):
            with registry.capture("layer1_output") as capture:
                for i, _ in enumerate(model.stream(PROMPTS[turn], max_new_tokens=16)):
                    if i % 5 == turn:
                        steps.append(
                            [(v.step.step, v.step.sequences[0].position) for v in capture.take()]
                        )
                steps.append([v.step.step for v in capture.take()])
        return steps

    steps = both(run)
    assert len(steps[-1]) > 0


@pytest.mark.parametrize("name", ["embed_tokens", "layer1_output", "final_norm", "logits"])
def test_captures_of_sequences_that_end_one_by_one(name: str) -> None:
    """A capture sees no row of a sequence that has ended."""

    def run(model: LlamaForCausalLM) -> Any:
        registry = HookRegistry()
        model.set_hook_registry(registry)
        config = engine.GenerationConfig(max_new_tokens=24, eos_token_id=[])
        generation = engine.Generation(model._engine, PROMPTS, config)
        with registry.capture(name) as capture:
            for step in range(24):
                generation.step()
                if step in (8, 15):
                    generation.finish(step % 4, "enough")
        kept = capture.take()
        return [(v.step.step, [s.position for s in v.step.sequences], v.tensor.shape) for v in kept]

    both(run)


def test_captured_values_are_those_of_the_tokens() -> None:
    values: list[list[Any]] = []
    for model in pair():
        registry = HookRegistry()
        model.set_hook_registry(registry)
        with registry.capture("final_norm") as capture:
            model.generate(IDS, max_new_tokens=30)
        values.append([v.tensor.numpy()[-1] for v in capture.take()])
    assert len(values[1]) == len(values[0]) == 30
    np.testing.assert_allclose(values[1], values[0], atol=1e-3)


def test_a_cache_of_the_users_may_change_between_two_tokens() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        cache = model.new_cache()
        tokens, lengths = [], []
        for i, token in enumerate(model.stream(IDS, max_new_tokens=24, cache=cache)):
            tokens.append(token)
            lengths.append(cache.length())
            if i == 7:  # something else at the place of the next token
                model.forward([(token + 1) % VOCAB], cache)
                cache.truncate(lengths[-1])
            if i == 14:
                cache.truncate(3)
            if i == 20:
                cache.clear()
        return tokens, lengths, cache.tokens()

    tokens, lengths, _ = both(run)
    assert lengths == [len(IDS) + i for i in range(len(tokens))]


def test_other_weights_between_two_tokens() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        stream = model.stream(IDS, max_new_tokens=20)
        tokens = [next(stream) for _ in range(8)]
        model.load_state_dict(random_state(tiny_config(), seed=1))
        with pytest.raises(ValueError, match="belongs to another model"):
            next(stream)
        return tokens

    both(run)


def test_a_hook_that_raises_loses_no_token() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        registry = HookRegistry()
        model.set_hook_registry(registry)
        plain = model.generate(IDS, max_new_tokens=20).tolist()
        config = engine.GenerationConfig(max_new_tokens=20, eos_token_id=[])
        generation = engine.Generation(model._engine, [IDS], config)

        def fail(name: str, tensor: Tensor, layer: int) -> None:
            raise KeyError("no")

        for i in range(20):
            if i in (3, 10):
                handle = registry.register_hook("layer1_mlp", fail)
                for _ in range(2):
                    with pytest.raises(KeyError):
                        generation.step()
                handle.remove()
            generation.step()
        assert list(generation.tokens(0)) == plain
        return plain

    both(run)


def test_the_last_token_of_the_context() -> None:
    def run(model: LlamaForCausalLM) -> Any:
        out = model.generate(IDS, max_length=16, return_dict_in_generate=True)
        return out.sequences.tolist(), out.finish_reasons

    ids, _ = both(run, max_position_embeddings=16)
    assert len(ids) == 16


def test_what_is_not_finite_is_told_when_it_comes() -> None:
    """Of the step that has it, not of the one before, although the device is at both."""
    for model in pair():
        state = random_state(tiny_config())
        free = model.generate(IDS, max_new_tokens=20).tolist()
        new = [t for t in free[len(IDS) :] if t not in IDS]
        assert new
        state["model.embed_tokens.weight"][new[0]] = np.nan
        model.load_state_dict(state)
        found = []
        with pytest.raises(RuntimeError, match="is NaN"):
            for token in model.stream(IDS, max_new_tokens=20):
                found.append(token)
        assert found == free[len(IDS) : free.index(new[0]) + 1]
