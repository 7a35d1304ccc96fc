"""Tokenizers, and whole model directories with them, made on the spot for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from infinilm import Tensor, engine
from tiny import random_state, tiny_config
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside. "
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentencepiece_like() -> tokenizers.Tokenizer:
    """As Llama 2's: ``▁`` for spaces, one put in front, bytes where a character has no token."""
    words = ["▁Once", "▁upon", "▁a", "▁time", "▁the", "▁Lily", ",", ".", "!", "▁girl"]
    characters = sorted({*"▁", *TEXT.replace(" ", "▁"), *"xyzé"})
    singles = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = {*words}
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if word[:end] not in pieces or pair not in merges:
                pieces.add(word[:end])
                merges.append(pair)
    vocabulary = dict.fromkeys([*SPECIAL, *singles, *characters, *sorted(pieces - {*characters})])
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary)},
            merges=list(dict.fromkeys(merges)),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _finish(tokenizer)


def byte_level() -> tokenizers.Tokenizer:
    """As Llama 3's: bytes, and merges of them."""
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "a"), ("Ã", "©"), ("!", "!")]
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(m) for m in merges)]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finish(tokenizer)


def _finish(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A"], pair=["<s>", "$A", "<s>", "$B:1"], special_tokens=[("<s>", 1)]
    )
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: tokenizers.Tokenizer, **config: Any) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True, "__type": "AddedToken"},
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        **config,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")


def write_model(
    directory: Path, tokenizer: tokenizers.Tokenizer, seed: int = 0, **fields: Any
) -> Path:
    """A HuggingFace directory with a tiny random model that speaks ``tokenizer``'s language."""
    write_tokenizer(directory, tokenizer, chat_template=CHAT_TEMPLATE)
    fields = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 256, **fields}
    config = tiny_config(**fields)
    config.bos_token_id = 1
    config.save_pretrained(directory)
    state = {n: Tensor.from_numpy(v) for n, v in random_state(config, seed).items()}
    engine.save_safetensors(directory / "model.safetensors", state)
    return directory


def pick(tokens: list[int]) -> Any:
    """A logits processor that makes a model write these tokens, whatever its weights."""
    left = list(tokens)

    def processor(_: list[int], logits: np.ndarray) -> None:
        logits[:] = -1e9
        logits[left.pop(0)] = 0

    return processor
