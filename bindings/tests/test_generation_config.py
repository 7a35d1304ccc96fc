"""GenerationConfig, and HuggingFace's generation_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import infinilm
import pytest
from configs import hf


def test_generation_configs_of_hf() -> None:
    config = infinilm.GenerationConfig.from_json(
        '{"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "do_sample": true, '
        '"temperature": 0.6, "top_p": 0.9, "top_k": null, "repetition_penalty": 1.05, '
        '"max_new_tokens": 12, "num_beams": 1, "length_penalty": 2.0, "typical_p": 1.0, '
        '"transformers_version": "4.57.0", "output_scores": true, "suppress_tokens": null}'
    )
    assert (config.eos_token_id, config.pad_token_id, config.do_sample) == ([2, 3], 0, True)
    assert (config.temperature, config.top_p, config.top_k) == (0.6, 0.9, 50)
    assert (config.repetition_penalty, config.max_new_tokens) == (1.05, 12)
    assert infinilm.GenerationConfig.from_json(config.to_json()) == config
    assert infinilm.GenerationConfig.from_json("{}").eos_token_id == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("no_repeat_ngram_size", 3),
        ("bad_words_ids", [[1]]),
        ("forced_eos_token_id", 2),
        ("typical_p", 0.9),
        ("epsilon_cutoff", 0.1),
        ("min_new_tokens", 3),
        ("suppress_tokens", [1]),
        ("guidance_scale", 1.5),
        ("stop_strings", ["x"]),
        ("cache_implementation", "quantized"),
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("max_length", True),
        ("do_sample", 1),
        ("eos_token_id", "2"),
        ("eos_token_id", [2.0]),
    ],
)
def test_generation_options_that_cannot_be_honoured(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        infinilm.GenerationConfig.from_json(json.dumps({name: value}))


def test_eos_comes_from_the_generation_config_where_there_is_one(tmp_path: Path) -> None:
    model = hf(eos_token_id=[7], pad_token_id=3)
    read = infinilm.GenerationConfig.from_pretrained
    assert read(tmp_path, model).eos_token_id == [7]
    assert read(tmp_path, model).pad_token_id == 3
    path = tmp_path / "generation_config.json"
    path.write_text('{"eos_token_id": 9}')
    assert read(tmp_path, model).eos_token_id == [9]
    path.write_text("{}")
    assert read(tmp_path, model).eos_token_id == []
    path.write_text('{"num_beams": 2}')
    with pytest.raises(ValueError, match=r"generation_config\.json.*num_beams"):
        read(tmp_path, model)
