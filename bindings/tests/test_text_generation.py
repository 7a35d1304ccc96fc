"""``generate`` on the Python side: prompts of all kinds in, sequences and text out."""

from __future__ import annotations

import _thread
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import GenerationConfig, LlamaForCausalLM
from text_models import byte_level, pick, sentencepiece_like, write_model

PROMPT = "the a"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), byte_level())


@pytest.fixture(scope="module")
def model(directory: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(directory)
    model.generation_config = GenerationConfig()  # no eos
    return model


def ids_of(model: LlamaForCausalLM, text: str, special: bool = False) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=special)


def greedy(model: LlamaForCausalLM, ids: list[int], count: int) -> list[int]:
    for _ in range(count):
        ids = [*ids, int(model(ids).numpy()[-1].argmax())]
    return ids


def test_ids_in_ids_out(model: LlamaForCausalLM) -> None:
    expected = greedy(model, [1, 7, 9], 6)
    for prompt in ([1, 7, 9], (1, 7, 9), np.array([1, 7, 9], np.int16)):
        found = model.generate(prompt, max_new_tokens=6)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.int64
        assert found.tolist() == expected


def test_shapes_of_batches(model: LlamaForCausalLM) -> None:
    one = model.generate([[1, 7, 9]], max_new_tokens=2)
    assert one.shape == (1, 5)
    both = model.generate([[1, 7, 9], [4, 5, 6]], max_new_tokens=2)
    assert both.shape == (2, 5)
    assert both[0].tolist() == one[0].tolist() == greedy(model, [1, 7, 9], 2)
    ragged = model.generate([[1, 7, 9], [4]], max_new_tokens=2)
    assert isinstance(ragged, list)
    assert [r.tolist() for r in ragged] == [greedy(model, [1, 7, 9], 2), greedy(model, [4], 2)]
    assert all(r.dtype == np.int64 for r in ragged)


def test_default_length_is_20_as_in_transformers(model: LlamaForCausalLM) -> None:
    assert len(model.generate([1, 7])) == 22
    assert len(model.generate([1, 7], max_length=9)) == 9
    assert len(model.generate([1, 7], max_length=9, max_new_tokens=3)) == 5


@pytest.mark.parametrize(
    ("pad", "eos", "filled"), [(4, 3, 4), (None, 3, 3), (None, [8, 3], 8), (4, [8, 3], 4)]
)
def test_padding(model: LlamaForCausalLM, pad: int | None, eos: Any, filled: int) -> None:
    processors = [pick([10, 3]), pick([11, 12, 13, 14])]
    found = model.generate(
        [[1, 7], [1, 9]],
        max_new_tokens=4,
        eos_token_id=eos,
        pad_token_id=pad,
        logits_processor=processors,
    )
    assert found.tolist() == [[1, 7, 10, 3, filled, filled], [1, 9, 11, 12, 13, 14]]


def test_text_in_text_out(model: LlamaForCausalLM) -> None:
    text = model.generate(PROMPT, max_new_tokens=8)
    assert isinstance(text, str)
    assert text.startswith(PROMPT)
    ids = model.generate(ids_of(model, PROMPT, True), max_new_tokens=8)
    assert text == model.tokenizer.decode(ids, skip_special_tokens=True)
    several = model.generate([PROMPT, "x"], max_new_tokens=8)
    assert several == [text, model.generate("x", max_new_tokens=8)]
    assert model.generate((PROMPT,), max_new_tokens=8) == [text]


def test_empty_text(model: LlamaForCausalLM, tmp_path: Path) -> None:
    assert isinstance(model.generate("", max_new_tokens=2), str)  # it has a bos token
    raw = byte_level()
    raw.post_processor = None
    bare = LlamaForCausalLM.from_pretrained(write_model(tmp_path, raw))
    with pytest.raises(ValueError, match="has no tokens"):
        bare.generate("")
    with pytest.raises(ValueError, match="prompt 1"):
        bare.generate(["a", ""])


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (["a", 3], TypeError),
        ([3, "a"], TypeError),
        ([[1], "a"], TypeError),
        (3, TypeError),
        (None, TypeError),
        ([1.5], TypeError),
        ([True], TypeError),
        ([], ValueError),
        ([[]], ValueError),
        ([[1], []], ValueError),
        ([10**6], IndexError),
        ([1] * 256, ValueError),
        ([1] * 300, ValueError),
    ],
)
def test_bad_prompts(model: LlamaForCausalLM, prompt: Any, kind: type) -> None:
    with pytest.raises(kind):
        model.generate(prompt)


def test_stops_at_the_longest_sequence(model: LlamaForCausalLM) -> None:
    found = model.generate([1] * 250, max_new_tokens=100, return_dict_in_generate=True)
    assert len(found.sequences) == 256
    assert found.finish_reasons == ["length"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temprature", "did you mean 'temperature'"),
        ("max_tokens", "did you mean 'max_new_tokens'"),
        ("stop_strings", "did you mean 'stop'"),
        ("attention_mask", "there is no padding"),
        ("num_beams", "beam search is not supported"),
        ("qqq", "it has max_new_tokens, max_length"),
    ],
)
def test_unknown_keywords(model: LlamaForCausalLM, name: str, message: str) -> None:
    for call in (model.generate, model.stream):
        with pytest.raises(TypeError, match=message):
            call([1], **{name: 1})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"top_p": 0.0}, ValueError, "top_p"),
        ({"top_p": 1.5}, ValueError, "top_p"),
        ({"min_p": 2.0}, ValueError, "min_p"),
        ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens"),
        ({"max_new_tokens": -1}, (ValueError, OverflowError), "max_new_tokens"),
        ({"max_new_tokens": 1.5}, TypeError, "max_new_tokens"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"eos_token_id": "</s>"}, TypeError, "eos_token_id"),
        ({"do_sample": True, "temperature": 0}, ValueError, "contradicts"),
        ({"stop": ""}, ValueError, "stop"),
        ({"stop": [3]}, TypeError, "stop"),
        ({"logits_processor": 3}, TypeError, "callable"),
        ({"logits_processor": []}, ValueError, "0 entries for 1 prompts"),
        ({"max_length": 1}, ValueError, "max_length"),
    ],
)
def test_bad_values(
    model: LlamaForCausalLM, options: dict[str, Any], kind: Any, message: str
) -> None:
    with pytest.raises(kind, match=message):
        model.generate([1], **options)


def test_what_turns_sampling_on(model: LlamaForCausalLM) -> None:
    best = model.generate([1, 7], max_new_tokens=12).tolist()

    def differs(**options: Any) -> bool:
        found = [
            model.generate([1, 7], max_new_tokens=12, seed=seed, **options).tolist()
            for seed in range(3)
        ]
        return any(ids != best for ids in found)

    assert differs(temperature=5.0)
    assert differs(top_k=100)
    assert differs(top_p=0.99)
    assert differs(min_p=0.001)
    assert differs(do_sample=True)
    assert not differs()
    assert not differs(temperature=0)
    assert not differs(temperature=0, top_p=0.9)
    assert not differs(do_sample=False, temperature=5.0)
    assert not differs(top_k=1)


def test_seed(model: LlamaForCausalLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 16, "temperature": 3.0, "top_k": 0}
    first = model.generate([1, 7], seed=5, **options).tolist()
    assert model.generate([1, 7], seed=5, **options).tolist() == first
    assert model.generate([1, 7], seed=6, **options).tolist() != first


def test_defaults_out_of_generation_config(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = {"do_sample": True, "temperature": 4.0, "max_new_tokens": 5, "eos_token_id": [2, 3]}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    config = model.generation_config
    assert (config.do_sample, config.temperature, config.max_new_tokens) == (True, 4.0, 5)
    assert list(config.eos_token_id) == [2, 3]
    assert len(model.generate([1, 7], eos_token_id=[])) == 7
    runs = {tuple(model.generate([1, 7], eos_token_id=[], seed=s).tolist()) for s in range(4)}
    assert len(runs) > 1
    greedy_ids = greedy(model, [1, 7], 5)
    assert model.generate([1, 7], eos_token_id=[], do_sample=False).tolist() == greedy_ids
    assert model.generate([1, 7], eos_token_id=[], temperature=0).tolist() == greedy_ids
    assert len(model.generate([1, 7], eos_token_id=[], max_length=4)) == 4
    mine = GenerationConfig(max_new_tokens=2)
    assert len(model.generate([1, 7], generation_config=mine)) == 4
    assert mine == GenerationConfig(max_new_tokens=2)
    assert model.generation_config == config


def test_eos_and_stop_ids(model: LlamaForCausalLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "return_dict_in_generate": True}
    found = model.generate([1], eos_token_id=9, logits_processor=pick([8, 9, 8]), **options)
    assert found.sequences.tolist() == [1, 8, 9]
    assert found.finish_reasons == ["eos"]
    found = model.generate([1], stop_token_ids=[9], logits_processor=pick([8, 9, 8]), **options)
    assert found.sequences.tolist() == [1, 8, 9]
    assert found.finish_reasons == ["stop"]
    found = model.generate([1], logits_processor=pick([8, 9, 8, 9, 8]), **options)
    assert found.finish_reasons == ["length"]


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
@pytest.mark.parametrize(
    ("written", "stop", "kept"),
    [
        ("x the end. y", "the end", "x the end"),
        ("x the end. y", ["zzz", "end"], "x the end"),
        ("é 你好 🦙 you", "好 🦙", "é 你好 🦙"),
        ("no such thing", "Lily", "no such thing"),
        ("a!! b", "!", None),
    ],
)
def test_stop_strings(tmp_path: Path, make: Any, written: str, stop: Any, kept: str | None) -> None:
    model = LlamaForCausalLM.from_pretrained(write_model(tmp_path, make()))
    tokens = ids_of(model, written)
    options: dict[str, Any] = {"max_new_tokens": len(tokens), "eos_token_id": [], "stop": stop}
    for prompt in ("x", ids_of(model, "x", True)):
        found = model.generate(
            prompt,
            logits_processor=pick(tokens),
            return_dict_in_generate=True,
            **options,
        )
        given = model.generate(prompt, logits_processor=pick(tokens), **options)
        if isinstance(prompt, str):
            text = found.texts[0]
            assert given == text
        else:
            text = model.tokenizer.decode(found.sequences, skip_special_tokens=True)
        # The token that has the stop string is kept whole.
        assert text.endswith(kept or ("a!", "a!!"))
        ended = kept != "no such thing"
        assert found.finish_reasons == ["stop" if ended else "length"]


def test_stop_strings_do_not_look_at_the_prompt(model: LlamaForCausalLM) -> None:
    tokens = ids_of(model, "bcd")
    text = model.generate("a stop", stop="stop", max_new_tokens=3, logits_processor=pick(tokens))
    assert text == "a stopbcd"


def test_stop_string_of_a_special_token(model: LlamaForCausalLM) -> None:
    tokens = [*ids_of(model, "yes"), 4, *ids_of(model, "no")]
    text = model.generate("x", stop="<|im_end|>", logits_processor=pick(tokens))
    assert text == "xyes"


def test_stop_strings_per_sequence(model: LlamaForCausalLM) -> None:
    found = model.generate(
        ["x", "yy"],
        stop=".",
        max_new_tokens=4,
        return_dict_in_generate=True,
        logits_processor=[pick(ids_of(model, "a.bc")), pick(ids_of(model, "defg"))],
    )
    assert found.texts == ["xa.", "yydefg"]
    assert found.finish_reasons == ["stop", "length"]


def test_logits_processor_sees_and_edits(model: LlamaForCausalLM) -> None:
    calls: list[list[int]] = []

    def forbid(tokens: list[int], logits: np.ndarray) -> None:
        assert isinstance(tokens, list)
        assert logits.dtype == np.float32
        assert logits.shape == (model.config.vocab_size,)
        calls.append(tokens)
        logits[best] = -np.inf

    best = greedy(model, [1, 7], 1)[-1]
    found = model.generate([1, 7], max_new_tokens=3, logits_processor=forbid).tolist()
    assert best not in found[2:]
    assert calls == [found[:2], found[:3], found[:4]]

    def replace(tokens: list[int], logits: np.ndarray) -> np.ndarray:
        return -logits.astype(np.float64)

    worst = int(model([1, 7]).numpy()[-1].argmin())
    assert model.generate([1, 7], max_new_tokens=1, logits_processor=replace)[-1] == worst


def test_logits_processor_per_prompt(model: LlamaForCausalLM) -> None:
    found = model.generate(
        [[1, 7], [1, 7]], max_new_tokens=2, logits_processor=[None, pick([5, 6])]
    )
    assert found.tolist() == [greedy(model, [1, 7], 2), [1, 7, 5, 6]]
    with pytest.raises(ValueError, match="1 entries for 2 prompts"):
        model.generate([[1], [1]], logits_processor=[None])
    with pytest.raises(ValueError, match="shape"):
        model.generate([1], logits_processor=lambda tokens, logits: logits[:3])


def test_errors_of_a_processor_come_through(model: LlamaForCausalLM) -> None:
    error = ZeroDivisionError("mine")

    def fail(tokens: list[int], logits: np.ndarray) -> None:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        model.generate([1, 7], logits_processor=fail)
    assert caught.value is error
    assert model.generate([1, 7], max_new_tokens=2).tolist() == greedy(model, [1, 7], 2)


def test_interrupt_leaves_the_model_usable(model: LlamaForCausalLM) -> None:
    calls = []

    def interrupt(tokens: list[int], logits: np.ndarray) -> None:
        calls.append(tokens)
        if len(calls) == 3:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        model.generate([1, 7], max_new_tokens=200, logits_processor=interrupt)
    assert len(calls) < 6
    assert model.generate([1, 7], max_new_tokens=2).tolist() == greedy(model, [1, 7], 2)


def test_logprobs(model: LlamaForCausalLM) -> None:
    found = model.generate([1, 7, 9], max_new_tokens=4, logprobs=True, prompt_logprobs=True)
    logits = model(found.sequences).numpy().astype(np.float64)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [logits[i, token] for i, token in enumerate(found.sequences[1:].tolist())]
    assert np.isnan(found.prompt_logprobs[0][0])
    np.testing.assert_allclose(found.prompt_logprobs[0][1:], expected[:2], atol=1e-4)
    np.testing.assert_allclose(found.logprobs[0], expected[2:], atol=1e-4)
    only = model.generate([[1, 7], [1, 9]], max_new_tokens=2, logprobs=True)
    assert only.prompt_logprobs is None
    assert [len(row) for row in only.logprobs] == [2, 2]
    assert only.sequences.shape == (2, 4)
    assert only.texts is None
    text = model.generate(PROMPT, max_new_tokens=2, logprobs=True)
    assert text.texts == [model.generate(PROMPT, max_new_tokens=2)]
    assert text.sequences.ndim == 1


def test_cache_of_a_conversation(model: LlamaForCausalLM) -> None:
    cache = model.new_cache()
    first = model.generate([1, 7, 9], max_new_tokens=4, cache=cache)
    assert list(cache.tokens()) == first[: cache.length()].tolist()
    assert cache.length() >= 6
    more = [*first.tolist(), 11, 12]
    second = model.generate(more, max_new_tokens=4, cache=cache)
    assert second.tolist() == greedy(model, more, 4)
    with pytest.raises(ValueError, match="cache"):
        model.generate([2, 2], cache=cache)
    with pytest.raises(ValueError, match="cache"):
        model.generate([[1, 7], [1, 9]], cache=cache)
    cache.truncate(2)
    assert model.generate([1, 7, 9], max_new_tokens=4, cache=cache).tolist() == first.tolist()


def test_threads_share_a_model(model: LlamaForCausalLM) -> None:
    prompts = [[1, start, 9] for start in range(5, 13)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ids: model.generate(ids, max_new_tokens=8).tolist(), prompts))
    assert found == [model.generate(ids, max_new_tokens=8).tolist() for ids in prompts]


def test_without_cache(model: LlamaForCausalLM) -> None:
    found = model.generate([[1, 7], [3, 9]], max_new_tokens=6, use_cache=False)
    assert found.tolist() == [greedy(model, [1, 7], 6), greedy(model, [3, 9], 6)]


def test_sample_model_writes_drama() -> None:
    model, tokenizer = infinilm.load(infinilm.sample_model())
    assert isinstance(model, LlamaForCausalLM)
    assert model.tokenizer is tokenizer
    text = model.generate("ROMEO:", max_new_tokens=60, temperature=0.8, seed=1)
    assert text.startswith("ROMEO:")
    assert len(text) > 80
    assert text == model.generate("ROMEO:", max_new_tokens=60, temperature=0.8, seed=1)
