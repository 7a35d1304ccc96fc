"""What Transformers and compressed-tensors read out of saved models."""

from __future__ import annotations

import json
from pathlib import Path

import infinilm
import numpy as np
import pytest
from infinilm import LlamaForCausalLM
from quantized_formats import Format, make_checkpoint
from tiny import VOCAB, random_state, tiny_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = [int(i) for i in np.random.default_rng(3).integers(0, VOCAB, size=24)]


def peer_logits(folder: Path, ids: list[int]) -> np.ndarray:
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits: np.ndarray = peer(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(logits).max() > 0.5
    return logits


@pytest.mark.parametrize("tied", [False, True])
def test_plain_models(tmp_path: Path, tied: bool) -> None:
    config = tiny_config(tie_word_embeddings=tied)
    model = LlamaForCausalLM(config)
    model.load_state_dict(random_state(config))
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(model(IDS).numpy(), peer_logits(tmp_path, IDS), rtol=0, atol=1e-4)


def test_the_sample_model(tmp_path: Path) -> None:
    llm = infinilm.load(infinilm.sample_model())
    llm.save_pretrained(tmp_path)
    ids = llm.tokenizer.encode("To be, or not to be")
    assert (
        transformers.AutoTokenizer.from_pretrained(tmp_path)("To be, or not to be").input_ids == ids
    )
    expected = peer_logits(tmp_path, ids)
    exact = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float32")
    np.testing.assert_allclose(exact(ids).numpy(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "f", [Format("gptq", 4, 32), Format("gptq", 8, -1), Format("int-quantized", 8, 64)]
)
@pytest.mark.parametrize("tied", [False, True])
def test_quantised_layers(tmp_path: Path, f: Format, tied: bool) -> None:
    """Converted: what was GPTQ is compressed-tensors then."""
    pytest.importorskip("compressed_tensors")
    config = tiny_config(hidden_size=128, intermediate_size=256, tie_word_embeddings=tied)
    source = make_checkpoint(tmp_path / "source", config, f).save()
    model = LlamaForCausalLM.from_pretrained(source)
    model.save_pretrained(tmp_path / "saved")
    expected = peer_logits(tmp_path / "saved", IDS)
    np.testing.assert_allclose(model(IDS).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["int4", "int8"])
@pytest.mark.parametrize("group", [None, 64])
def test_every_module(tmp_path: Path, name: str, group: int | None) -> None:
    """The package that defines the format makes of each module what it stands for, embedding and head too."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file

    config = tiny_config(hidden_size=128, intermediate_size=256)
    model = LlamaForCausalLM(config, quantization=name, group_size=group)
    model.load_state_dict(random_state(config))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    document = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    schemes = QuantizationConfig.model_validate(document).config_groups
    by_target = {target: s for s in schemes.values() for target in s.targets}
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    modules = [n.removesuffix(".weight_packed") for n in stored if n.endswith(".weight_packed")]
    assert {"model.embed_tokens", "lm_head"} < set(modules)
    for module in modules:
        parts = {n.rpartition(".")[2]: t for n, t in stored.items() if n.startswith(f"{module}.")}
        parts["weight_scale"] = parts["weight_scale"].float()
        found = compressor.decompress(parts, by_target.get(module, by_target["Linear"]))["weight"]
        expected = model.get_parameter(f"{module}.weight").numpy()
        np.testing.assert_array_equal(found.numpy(), expected, module)
