"""Conversations: the template, the answer, and a KV cache that follows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import infinilm
import pytest
from infinilm import LlamaForCausalLM, Tokenizer
from infinilm.loading import LoadedModel
from text_models import byte_level, pick, write_model

HELLO = [{"role": "user", "content": "Hello!"}]
END = 4  # <|im_end|>


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), byte_level(), eos_token_id=[END])


@pytest.fixture(scope="module")
def loaded(directory: Path) -> LoadedModel:
    return infinilm.load(directory)


def says(loaded: LoadedModel, text: str) -> Any:
    return pick([*loaded.tokenizer.encode(text, add_special_tokens=False), END])


def test_load_unpacks(directory: Path, loaded: LoadedModel) -> None:
    model, tokenizer = infinilm.load(str(directory), dtype="float32")
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(tokenizer, Tokenizer)
    assert model.tokenizer is tokenizer
    assert loaded.model.tokenizer is loaded.tokenizer
    assert "LoadedModel(LlamaForCausalLM(" in repr(loaded)
    options: dict[str, Any] = {"max_new_tokens": 5}
    assert loaded.generate("the", **options) == model.generate("the", **options)
    assert list(loaded.stream([1, 7], **options)) == list(model.stream([1, 7], **options))


def test_load_without_tokenizer(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        infinilm.load(tmp_path / "model")
    LlamaForCausalLM.from_pretrained(tmp_path / "model").generate([1])


def test_answer(loaded: LoadedModel) -> None:
    answer = loaded.chat(HELLO, logits_processor=says(loaded, "Hi you"))
    assert answer == "Hi you"
    pieces = loaded.chat(HELLO, stream=True, logits_processor=says(loaded, "Hi 🦙"))
    assert "".join(pieces) == "Hi 🦙"


def test_answer_is_the_continuation_of_the_template(loaded: LoadedModel) -> None:
    ids = loaded.tokenizer.apply_chat_template(HELLO)
    whole = loaded.model.generate(ids, max_new_tokens=12)
    expected = loaded.tokenizer.decode(whole[len(ids) :], skip_special_tokens=True)
    assert loaded.chat(HELLO, max_new_tokens=12) == expected


def test_answer_may_take_all_the_room(loaded: LoadedModel) -> None:
    tokens = loaded.tokenizer.encode("la " * 200, add_special_tokens=False)
    answer = loaded.chat(HELLO, logits_processor=pick(tokens), eos_token_id=[])
    prompt = loaded.tokenizer.apply_chat_template(HELLO)
    assert len(answer) > 100
    assert loaded.model.config.max_position_embeddings == 256
    assert len(loaded.tokenizer.encode(answer, False)) == pytest.approx(256 - len(prompt), abs=2)
    config = infinilm.GenerationConfig(max_new_tokens=3)
    short = loaded.chat(HELLO, logits_processor=pick(tokens), generation_config=config)
    assert short == "la "[: len(short)]


def test_cache_follows_the_conversation(loaded: LoadedModel) -> None:
    cache = loaded.model.new_cache()
    first = loaded.chat(HELLO, cache=cache, logits_processor=says(loaded, "Hi you"))
    held = cache.length()
    messages = [*HELLO, {"role": "assistant", "content": first}, {"role": "user", "content": "a"}]
    options: dict[str, Any] = {"max_new_tokens": 8, "eos_token_id": []}
    second = loaded.chat(messages, cache=cache, **options)
    assert cache.length() > held
    assert second == loaded.chat(messages, **options)
    # Another conversation: what the two have in common stays, the rest is forgotten.
    other = [{"role": "user", "content": "Help!"}]
    assert loaded.chat(other, cache=cache, **options) == loaded.chat(other, **options)
    assert loaded.chat(HELLO, cache=cache, **options) == loaded.chat(HELLO, **options)


def test_mistakes(loaded: LoadedModel) -> None:
    with pytest.raises(TypeError, match="messages"):
        loaded.chat("Hello")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="temperature"):
        loaded.chat(HELLO, temprature=1)
    with pytest.raises(ValueError, match="no chat template"):
        infinilm.load(infinilm.sample_model()).chat(HELLO)
