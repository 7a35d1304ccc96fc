"""LlamaConfig as HuggingFace's config.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from configs import ROPE, hf
from infinilm import LlamaConfig


def saved(config: LlamaConfig, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    written: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return written


@pytest.mark.parametrize("rope_type", [None, *ROPE])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_is_saved_is_read(tmp_path: Path, model_type: str, rope_type: str | None) -> None:
    scaling = rope_type and {"rope_type": rope_type, **ROPE[rope_type]}
    config = hf(model_type=model_type, rope_scaling=scaling, head_dim=16, dtype="bfloat16")
    config.save_pretrained(tmp_path / "made" / "new")
    assert LlamaConfig.from_pretrained(tmp_path / "made" / "new") == config
    written = saved(config, tmp_path)
    assert (written["model_type"], written["dtype"]) == (model_type, "bfloat16")
    assert not set(written) & {"attention_output_bias", "qk_norm", "decoupled_head_dim"}


def test_a_window_of_qwen_is_saved(tmp_path: Path) -> None:
    config = hf(model_type="qwen2")
    config.sliding_window = 8
    written = saved(config, tmp_path)
    assert (written["use_sliding_window"], written["max_window_layers"]) == (True, 0)
    assert LlamaConfig.from_pretrained(tmp_path) == config


def test_token_ids_are_saved_as_transformers_has_them(tmp_path: Path) -> None:
    config = hf(bos_token_id=1, eos_token_id=[2, 3])
    assert saved(config, tmp_path)["bos_token_id"] == 1
    assert saved(config, tmp_path)["eos_token_id"] == [2, 3]
    config.bos_token_id, config.eos_token_id = [], []
    assert saved(config, tmp_path)["bos_token_id"] is None
    assert saved(config, tmp_path)["eos_token_id"] is None
    config.eos_token_id = 7
    assert saved(config, tmp_path)["eos_token_id"] == 7


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bos_token_id": [1, 2]}, "bos_token_id"),
        ({"attention_bias": True}, "attention_output_bias"),
        ({"attention_output_bias": True}, "attention_output_bias"),
        ({"qk_norm": True}, "qk_norm"),
        ({"sliding_window": 8}, "sliding_window"),
        ({"model_type": "qwen2"}, "attention_bias"),
        ({"model_type": "qwen2", "attention_bias": True, "mlp_bias": True}, "mlp_bias"),
        ({"model_type": "qwen3"}, "qk_norm"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
    ],
)
def test_what_hf_cannot_express_is_refused(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    config = hf()
    for name, value in fields.items():
        setattr(config, name, value)
    assert config.validate()
    with pytest.raises(ValueError, match=named):
        config.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert LlamaConfig.from_json(config.to_json()) == config


def test_an_invalid_config_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hidden_size"):
        LlamaConfig(hidden_size=7).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_keys_survive(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "transformers_version": "4.57.0",
        "ü": {"a": [1, 2.5, None, True, "x"], "b": {}},
        "id2label": {"0": "LABEL_0"},
    }
    rope = {"rope_type": "linear", "factor": 2.0, "invented": [1]}
    config = hf(**unknown, rope_scaling=rope)
    for written in (saved(config, tmp_path), config.to_dict(), saved(config, tmp_path)):
        assert {key: written[key] for key in unknown} == unknown
        assert written["rope_scaling"] == rope
    again = LlamaConfig.from_json(config.to_json())
    assert again == config
    assert copy.copy(config).to_dict()["ü"] == unknown["ü"]
    assert config != hf(rope_scaling=rope)


def test_saving_replaces_the_file_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    hf().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        hf().save_pretrained(tmp_path / "file")
