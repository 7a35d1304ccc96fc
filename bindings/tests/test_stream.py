"""Text piece by piece: whole characters, right spaces, and nothing left behind."""

from __future__ import annotations

import _thread
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infinilm import LlamaForCausalLM, Tokenizer
from infinilm.text_stream import StopStrings, TextStream
from text_models import byte_level, pick, sentencepiece_like, write_model
from tokenizers import decoders

TOKENIZERS = {
    "bytes": Tokenizer(byte_level()),
    "pieces": Tokenizer(sentencepiece_like()),
}


def _metaspace() -> Tokenizer:
    raw = sentencepiece_like()
    raw.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace("▁", "first"), decoders.Fuse()]
    )
    return Tokenizer(raw)


TOKENIZERS["metaspace"] = _metaspace()
all_tokenizers = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def pieces(tokenizer: Tokenizer, prompt: list[int], tokens: list[int], **options: Any) -> list[str]:
    stream = TextStream(tokenizer, prompt, **options)
    return [*(stream.put(token) for token in tokens), stream.flush()]


def difference(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> str:
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    text = tokenizer.decode([*prompt, *tokens], skip_special_tokens=True)
    assert text.startswith(before)
    return text[len(before) :]


@all_tokenizers
@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time, the girl",
        "  two  spaces \n\n and lines\n",
        "é 你好 🦙🦙 x",
        "🦙" * 50,
        "👩‍👩‍👧‍👦 e\u0301",
        "Once" + " upon" * 60,
        " ",
    ],
)
def test_pieces_make_the_text(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text, add_special_tokens=False)
    found = pieces(tokenizer, [1], tokens)
    assert not any("\ufffd" in piece for piece in found)
    assert "".join(found) == difference(tokenizer, [1], tokens)
    assert found[-1] == ""


@all_tokenizers
@settings(deadline=None, max_examples=150)
@given(
    text=st.text(st.sampled_from("aé你🦙 \n,tLily"), min_size=2, max_size=40),
    cut=st.integers(1, 6),
)
def test_any_text_after_any_prompt(tokenizer: Tokenizer, text: str, cut: int) -> None:
    ids = tokenizer.encode(text)
    prompt, tokens = ids[:cut], ids[cut:]
    if "\ufffd" in tokenizer.decode(prompt):
        return  # within a character
    found = pieces(tokenizer, prompt, tokens)
    assert not any("\ufffd" in piece for piece in found)
    assert "".join(found) == difference(tokenizer, prompt, tokens)


@all_tokenizers
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_tokens_that_are_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    whole = [i for i in range(tokenizer.vocab_size) if "\ufffd" not in tokenizer.decode([i])]
    tokens = data.draw(st.lists(st.sampled_from(whole), max_size=60))
    found = pieces(tokenizer, [1], tokens)
    assert "".join(found) == difference(tokenizer, [1], tokens)


def test_characters_are_held_back_until_whole() -> None:
    tokenizer = TOKENIZERS["bytes"]
    tokens = tokenizer.encode("a🦙b", add_special_tokens=False)
    assert len(tokens) == 6
    assert pieces(tokenizer, [1], tokens) == ["a", "", "", "", "🦙", "b", ""]
    assert pieces(tokenizer, [1], tokens[:4]) == ["a", "", "", "", "\ufffd"]


def test_prompt_that_ends_within_a_character() -> None:
    for tokenizer in TOKENIZERS.values():
        ids = tokenizer.encode("🦙b", add_special_tokens=False)
        cut = ids.index(tokenizer.encode("🦙b", False)[-1]) - 1
        assert "".join(pieces(tokenizer, ids[:cut], ids[cut:])).endswith("🦙b")


def test_bytes_that_are_no_text_come_in_the_end() -> None:
    tokenizer = TOKENIZERS["bytes"]
    bad = tokenizer.token_to_id("ÿ")  # the byte 0xFF
    assert bad is not None
    good = tokenizer.encode("ab", add_special_tokens=False)
    assert "".join(pieces(tokenizer, [1], [bad, *good])) == "\ufffdab"
    found = pieces(tokenizer, [1], [bad] * 300)
    assert "".join(found) == "\ufffd" * 300
    assert sum(len(piece) for piece in found[:100]) > 20  # not all kept to the end


def test_special_tokens_are_left_out_or_shown() -> None:
    tokenizer = TOKENIZERS["bytes"]
    tokens = [*tokenizer.encode("a", False), 4, *tokenizer.encode("b", False)]
    assert "".join(pieces(tokenizer, [1], tokens)) == "ab"
    shown = "".join(pieces(tokenizer, [1], tokens, skip_special_tokens=False))
    assert shown == "a<|im_end|>b"


def test_stop_strings_over_several_tokens() -> None:
    tokenizer = TOKENIZERS["pieces"]
    search = StopStrings(tokenizer, ["time, the", "never"], [1])
    found = [search.put(token) for token in tokenizer.encode("Once upon a time, the girl", False)]
    text = ""
    for token, hit in zip(
        tokenizer.encode("Once upon a time, the girl", False), found, strict=True
    ):
        text += tokenizer.decode([1, token])[3:]
        if hit:
            break
    assert text.replace(" ", "").endswith("time,the")


# Through a model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), byte_level())


@pytest.fixture
def model(directory: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(directory)


def test_stream_is_what_generate_adds(model: LlamaForCausalLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 30, "eos_token_id": []}
    for prompt in ("the a", "é"):
        assert prompt + "".join(model.stream(prompt, **options)) == model.generate(
            prompt, **options
        )
    ids = list(model.stream([1, 7, 9], **options))
    assert all(type(token) is int for token in ids)
    assert [1, 7, 9, *ids] == model.generate([1, 7, 9], **options).tolist()


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_stream_of_a_known_text(tmp_path: Path, make: Any) -> None:
    model = LlamaForCausalLM.from_pretrained(write_model(tmp_path, make()))
    text = "Once upon a time 🦙 é 你好"
    tokens = [*model.tokenizer.encode(text, add_special_tokens=False), 2]
    found = list(model.stream("", max_new_tokens=99, logits_processor=pick(tokens), eos_token_id=2))
    assert "".join(found) == text
    assert "" not in found
    assert not any("\ufffd" in piece for piece in found)


def test_stream_ends_at_a_stop_string(model: LlamaForCausalLM) -> None:
    tokens = model.tokenizer.encode("one two three", add_special_tokens=False)
    found = model.stream("x", stop="two", logits_processor=pick(tokens), max_new_tokens=20)
    assert "".join(found) == "one two"


def test_mistakes_show_at_the_call(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="one prompt"):
        model.stream([[1, 2]])
    with pytest.raises(ValueError, match="one prompt"):
        model.stream(["a", "b"])
    with pytest.raises(ValueError, match=r"belong to generate\(\)"):
        model.stream("a", logprobs=True)
    with pytest.raises(TypeError, match="temperature"):
        model.stream("a", temprature=1)
    with pytest.raises(ValueError, match="top_p"):
        model.stream("a", top_p=3.0)
    with pytest.raises(ValueError, match="room"):
        model.stream([1] * 256)


def test_errors_come_through(model: LlamaForCausalLM) -> None:
    error = LookupError("mine")

    def fail(tokens: list[int], logits: np.ndarray) -> None:
        if len(tokens) > 4:
            raise error

    stream = model.stream([1, 7], logits_processor=fail, max_new_tokens=9)
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(LookupError) as caught:
        next(stream)
    assert caught.value is error
    with pytest.raises(StopIteration):
        next(stream)
    assert len(list(model.stream([1, 7], max_new_tokens=3, eos_token_id=[]))) == 3


def test_abandoned_streams_leave_nothing(model: LlamaForCausalLM) -> None:
    class Processor:
        def __call__(self, tokens: list[int], logits: np.ndarray) -> None:
            logits[2] = -1e9

    def live() -> weakref.ref[Processor]:
        processor = Processor()
        stream: Iterator[str] = model.stream("a", logits_processor=processor, max_new_tokens=50)
        for _ in stream:
            break
        return weakref.ref(processor)

    reference = live()
    gc.collect()
    assert reference() is None
    never_started = model.stream("a")
    del never_started


def test_interrupt(model: LlamaForCausalLM) -> None:
    def interrupt(tokens: list[int], logits: np.ndarray) -> None:
        if len(tokens) == 4:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        for _ in model.stream([1, 7], logits_processor=interrupt, max_new_tokens=100):
            pass
    assert len(list(model.stream([1, 7], max_new_tokens=3, eos_token_id=[]))) == 3


def test_two_streams_at_once(model: LlamaForCausalLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": []}
    both = zip(model.stream([1, 7], **options), model.stream([1, 9], **options), strict=True)
    left, right = zip(*both, strict=True)
    assert [1, 7, *left] == model.generate([1, 7], **options).tolist()
    assert [1, 9, *right] == model.generate([1, 9], **options).tolist()
