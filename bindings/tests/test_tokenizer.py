"""Tokenizers out of HuggingFace directories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import Tokenizer
from text_models import byte_level, sentencepiece_like, write_tokenizer
from tokenizers import processors


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path, sentencepiece_like())
    return tmp_path


def test_round_trip(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    text = "Once upon a time, Lily: é 你好 🦙!"
    ids = tokenizer.encode(text)
    assert isinstance(ids, list)
    assert ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(np.array(ids), skip_special_tokens=True) == text
    assert tokenizer.decode(ids).startswith("<s>")
    assert tokenizer.encode(text, add_special_tokens=False) == ids[1:]
    assert tokenizer.encode_batch([text, "a"]) == [ids, tokenizer.encode("a")]
    assert tokenizer.decode([]) == ""


def test_facts(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(str(directory))
    assert tokenizer.special_tokens == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (2, 0, None)
    assert len(tokenizer) == tokenizer.vocab_size == sentencepiece_like().get_vocab_size()
    assert tokenizer.id_to_token(1) == "<s>"
    assert tokenizer.token_to_id("</s>") == 2
    assert tokenizer.token_to_id("nowhere") is None
    assert "bos_token='<s>'" in repr(tokenizer)


def test_special_tokens_map_fills_in(directory: Path) -> None:
    config = json.loads((directory / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    special = {"eos_token": "<|im_end|>", "bos_token": "</s>"}
    (directory / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = Tokenizer.from_pretrained(directory)
    assert tokenizer.special_tokens["eos_token"] == "<|im_end|>"
    assert tokenizer.special_tokens["bos_token"] == "<s>"


@pytest.mark.parametrize(
    ("flags", "first", "last"),
    [
        ({}, [], []),
        ({"add_bos_token": True}, [1], []),
        ({"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
    ],
)
def test_flags_without_post_processor(
    tmp_path: Path, flags: dict[str, Any], first: list[int], last: list[int]
) -> None:
    raw = sentencepiece_like()
    raw.post_processor = None
    write_tokenizer(tmp_path, raw, **flags)
    middle = raw.encode("Lily").ids
    assert Tokenizer.from_pretrained(tmp_path).encode("Lily") == [*first, *middle, *last]


def test_own_post_processor_beats_flags(tmp_path: Path) -> None:
    raw = sentencepiece_like()
    raw.post_processor = processors.TemplateProcessing(
        single=["</s>", "$A"], pair=None, special_tokens=[("</s>", 2)]
    )
    write_tokenizer(tmp_path, raw, add_bos_token=True)
    assert Tokenizer.from_pretrained(tmp_path).encode("Lily")[0] == 2


def test_flag_for_unknown_token(tmp_path: Path) -> None:
    raw = sentencepiece_like()
    raw.post_processor = None
    write_tokenizer(tmp_path, raw, add_bos_token=True, bos_token="<nowhere>")
    with pytest.raises(ValueError, match="add_bos_token but bos_token is '<nowhere>'"):
        Tokenizer.from_pretrained(tmp_path)


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    raw = byte_level()
    raw.enable_truncation(3)
    raw.enable_padding(length=8)
    write_tokenizer(tmp_path, raw)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer.encode("four words are here"), True) == "four words are here"


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(
        FileNotFoundError, match=r"tokenizer\.model but no tokenizer\.json.*save_pre"
    ):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\ud800"])
def test_damaged_tokenizer_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer that can be read"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
def test_damaged_tokenizer_config(directory: Path, content: str) -> None:
    (directory / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        Tokenizer.from_pretrained(directory)


def test_wrong_types(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    with pytest.raises(TypeError, match="text must be a str, not bytes"):
        tokenizer.encode(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        tokenizer.encode_batch(["a", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="one sequence of ints"):
        tokenizer.decode([1.5])
    with pytest.raises(TypeError, match="one sequence of ints"):
        tokenizer.decode([[1, 2]])
    for bad in (-2, 2**40):
        with pytest.raises(IndexError, match=f"{bad} is no token id"):
            tokenizer.decode([1, bad])
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["a", text])):
        with pytest.raises(ValueError, match=r"lone surrogate, '\\ud800', at position 1"):
            call("a\ud800")


def test_package_is_imported_on_use_and_named_when_missing(directory: Path) -> None:
    code = (
        "import sys; sys.modules['tokenizers'] = None; import infinilm\n"
        f"try: infinilm.Tokenizer.from_pretrained({str(directory)!r})\n"
        "except ImportError as error: assert 'pip install tokenizers' in str(error), error\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_needs_numpy_only() -> None:
    code = (
        "import sys; import infinilm; infinilm.LlamaForCausalLM; infinilm.Tokenizer\n"
        "heavy = {'tokenizers', 'jinja2', 'tqdm', 'torch', 'transformers', 'ml_dtypes'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sample_model_has_one() -> None:
    tokenizer = Tokenizer.from_pretrained(infinilm.sample_model())
    text = "ROMEO:\nBut, soft! what light through yonder window breaks?\n\né 你 🦙"
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
