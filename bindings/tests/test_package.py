"""The package: what it exports, what importing it costs, and the Python side of the config proxies."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from configs import DEFAULTS
from infinilm import DataType, GenerationConfig, LlamaConfig, ModelConfig, engine


def test_every_exported_name_exists() -> None:
    for name in infinilm.__all__:
        assert getattr(infinilm, name) is not None
    assert set(infinilm.__all__) <= set(dir(infinilm))
    with pytest.raises(AttributeError, match="no attribute 'Lama'"):
        infinilm.Lama  # type: ignore[attr-defined]  # noqa: B018


def test_version() -> None:
    assert infinilm.__version__ == engine.version()
    assert infinilm.__version__.count(".") == 2


def test_importing_needs_numpy_only() -> None:
    """Nothing of the text side, and of other packages NumPy alone, is imported before it is used."""
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tokenizers", "jinja2", "tqdm", "torch", "ml_dtypes", "typing_extensions"}:
            raise AssertionError(name)
sys.meta_path.insert(0, Refuse())
import infinilm
infinilm.LlamaConfig(), infinilm.HookRegistry()
assert "infinilm.model" not in sys.modules
infinilm.LlamaForCausalLM
assert "infinilm.model" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_threads() -> None:
    before = infinilm.num_threads()
    try:
        infinilm.set_num_threads(1)
        assert infinilm.num_threads() == infinilm.get_num_threads() == 1
        for bad in (0, -1, 5000):
            with pytest.raises(ValueError, match="1024"):
                infinilm.set_num_threads(bad)
        with pytest.raises(TypeError, match="count must be an int, not float"):
            infinilm.set_num_threads(2.0)  # type: ignore[arg-type]
    finally:
        infinilm.set_num_threads(before)
    assert infinilm.cpu_level() in infinilm.available_cpu_levels()


def test_a_config_by_keywords() -> None:
    config = LlamaConfig(vocab_size=100, dtype="bfloat16", eos_token_id=7, hidden_act="gelu")
    assert isinstance(config, ModelConfig)
    assert (config.vocab_size, config.dtype, config.eos_token_id) == (100, DataType.BF16, [7])
    with pytest.raises(TypeError, match=r"no field 'vocab_sise'; did you mean 'vocab_size'\?"):
        LlamaConfig(vocab_sise=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        LlamaConfig(3)  # type: ignore[misc]


@pytest.mark.parametrize("kind", [LlamaConfig, GenerationConfig])
def test_a_name_that_does_not_exist(kind: Any) -> None:
    config = kind()
    with pytest.raises(
        AttributeError, match=r"no field 'eos_token_ids'; did you mean 'eos_token_id'\?"
    ):
        config.eos_token_ids = 3
    with pytest.raises(AttributeError, match=r"no field 'xyzzy'$"):
        config.xyzzy = 3
    with pytest.raises(AttributeError):
        config.xyzzy  # noqa: B018
    with pytest.raises(AttributeError):
        del config.eos_token_id


def test_dir_lists_fields_and_methods() -> None:
    public = [name for name in dir(LlamaConfig()) if not name.startswith("_")]
    methods = {
        "check",
        "field_names",
        "from_dict",
        "from_json",
        "from_pretrained",
        "kv_dim",
        "max_sequence_length",
        "save_pretrained",
        "to_dict",
        "to_json",
        "validate",
    }
    assert set(public) == methods | set(LlamaConfig.field_names())
    assert all(name.endswith("__") for name in dir(LlamaConfig()) if name.startswith("_"))
    assert len(public) == len(set(public))


def test_field_names_are_the_fields() -> None:
    config = LlamaConfig()
    assert set(LlamaConfig.field_names()) == set(config._fields)
    defaults = {**DEFAULTS, "dtype": "float32"}  # by its name
    assert {name: getattr(config, name) for name in LlamaConfig.field_names()} == defaults


def changed() -> LlamaConfig:
    return LlamaConfig(
        dtype="bfloat16",
        vocab_size=10,
        head_dim=24,
        decoupled_head_dim=True,
        rope_theta=1e6,
        rope_scaling={"rope_type": "linear", "factor": 2.0},
        attention_output_bias=True,
        attention_bias=False,
        sliding_window=5,
        name_or_path="somewhere",
        pad_token_id=0,
        bos_token_id=[3, 4],
        eos_token_id=[],
    )


COPIES = [
    copy.copy,
    copy.deepcopy,
    lambda config: pickle.loads(pickle.dumps(config)),
    lambda config: type(config).from_json(config.to_json()),
    lambda config: type(config).from_dict(config.to_dict()),
]


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle", "json", "dict"])
@pytest.mark.parametrize("make", [LlamaConfig, changed], ids=["defaults", "changed"])
def test_copies_of_a_config_are_equal_and_independent(make: Any, duplicate: Any) -> None:
    config = make()
    other = duplicate(config)
    assert other == config
    assert repr(other) == repr(config)
    for name in LlamaConfig.field_names():
        assert getattr(other, name) == getattr(config, name), name
    other.hidden_size = other.hidden_size * 2
    assert other != config
    assert other.head_dim == (24 if make is changed else 256)  # follows, or does not


def test_equality_and_hash() -> None:
    assert LlamaConfig() == LlamaConfig()
    assert LlamaConfig() != LlamaConfig(vocab_size=1)
    assert LlamaConfig() != GenerationConfig()
    assert LlamaConfig() != "config"
    assert LlamaConfig() == LlamaConfig(head_dim=128)  # the same values, though only one follows
    with pytest.raises(TypeError, match="unhashable"):
        hash(LlamaConfig())


def test_repr_can_be_read_back() -> None:
    for config in (LlamaConfig(), changed(), GenerationConfig(seed=3, stop_token_ids=[4])):
        assert eval(repr(config)) == config


def test_rope_scaling_is_a_dict() -> None:
    config = LlamaConfig()
    config.rope_scaling = {"rope_type": "linear", "factor": np.float32(2)}
    assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    for bad, kind in (
        ({"rope_type": "spiral"}, ValueError),
        ("linear", TypeError),
        ([("rope_type", "linear")], TypeError),
        ({"rope_type": "linear", "factor": object()}, TypeError),
    ):
        with pytest.raises(kind):
            config.rope_scaling = bad  # type: ignore[assignment]
        assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    config.rope_scaling = None
    assert config.rope_scaling is None


def test_dtypes_of_a_config() -> None:
    config = LlamaConfig()
    for value in (DataType.BF16, "bfloat16", "torch.bfloat16"):
        config.dtype = value
        assert config.dtype is DataType.BF16
    with pytest.raises(ValueError, match="bfloat17"):
        config.dtype = "bfloat17"
    with pytest.raises(TypeError, match="dtype"):
        config.dtype = 3
    assert config.dtype is DataType.BF16


def test_from_dict_takes_what_numpy_gives() -> None:
    config = LlamaConfig.from_dict(
        {"model_type": "llama", "vocab_size": np.int64(77), "eos_token_id": np.array([2, 3])}
    )
    assert (config.vocab_size, config.eos_token_id) == (77, [2, 3])
    with pytest.raises(TypeError, match="fields must be a mapping, not list"):
        LlamaConfig.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="object"):
        LlamaConfig.from_dict({"vocab_size": object()})


def test_paths(tmp_path: Path) -> None:
    config = LlamaConfig(attention_bias=False)
    config.save_pretrained(tmp_path / "new" / "ñ")
    assert json.loads((tmp_path / "new" / "ñ" / "config.json").read_text())
    assert LlamaConfig.from_pretrained(str(tmp_path / "new" / "ñ")).attention_bias is False
    with pytest.raises(TypeError, match="directory must be a path"):
        LlamaConfig.from_pretrained(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError) as caught:
        LlamaConfig.from_pretrained(tmp_path / "missing")
    assert caught.value.errno == 2
    assert "missing" in str(caught.value)
    with pytest.raises(ValueError, match="null"):
        LlamaConfig.from_pretrained("a\0b")


@pytest.mark.parametrize("duplicate", COPIES[:3], ids=["copy", "deepcopy", "pickle"])
def test_copies_of_generation_settings(duplicate: Any) -> None:
    config = GenerationConfig(
        max_new_tokens=5, do_sample=True, seed=2**64 - 1, stop_token_ids=[1, 2], min_p=0.1
    )
    assert duplicate(config) == config
    assert {name: getattr(duplicate(config), name) for name in config._fields} == {
        name: getattr(config, name) for name in config._fields
    }


def test_errors_of_the_core_are_python_s() -> None:
    config = LlamaConfig(hidden_size=30, num_attention_heads=4)
    assert not config.validate()
    with pytest.raises(ValueError, match="30"):
        config.check()
    with pytest.raises(ValueError, match="30"):
        engine.LlamaForCausalLM(config)
    model = engine.LlamaForCausalLM(
        LlamaConfig(vocab_size=3, hidden_size=4, num_attention_heads=2, num_key_value_heads=2)
    )
    with pytest.raises(RuntimeError, match="weights"):
        model.forward(np.array([1]))
    with pytest.raises(KeyError, match="nothing"):
        tiny().get_parameter("nothing")
    with pytest.raises(IndexError, match="61"):
        tiny().forward(np.array([61]))
    with pytest.raises(FileNotFoundError):
        engine.LlamaForCausalLM.from_pretrained("/nowhere")


def tiny() -> engine.LlamaForCausalLM:
    from tiny import tiny_model

    return tiny_model()


def test_the_core_can_be_used_from_any_thread() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(LlamaConfig(vocab_size=5).vocab_size))
    thread.start()
    thread.join()
    assert results == [5]


def test_help_shows_fields_and_texts() -> None:
    signature = inspect.signature(LlamaConfig)
    assert set(signature.parameters) == set(LlamaConfig.field_names())
    assert signature.parameters["vocab_size"].default == 32000
    assert all(inspect.getdoc(getattr(LlamaConfig, name)) for name in LlamaConfig.field_names())
    text = inspect.getdoc(LlamaConfig.check)
    assert text
    assert "ValueError" in text
    assert "HuggingFace" in str(inspect.getdoc(engine.LlamaForCausalLM.from_pretrained))
