"""Against the package that defines the format: compressed-tensors, alone and under Transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from infinilm import LlamaForCausalLM
from quantized_formats import (
    Format,
    config_of,
    group_indices,
    make_checkpoint,
    random_matrix,
    tensors_of,
    words,
)
from tiny import VOCAB, tiny_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
compressed_tensors = pytest.importorskip("compressed_tensors")

IDS = [int(i) for i in np.random.default_rng(3).integers(0, VOCAB, size=24)]
FORMATS = [
    Format("pack-quantized", 4, 32),
    Format("pack-quantized", 4, 64, zeros=True),
    Format("pack-quantized", 4, -1, zeros=True),
    Format("pack-quantized", 8, 128),
    Format("pack-quantized", 8, -1, zeros=True),
    Format("int-quantized", 8, -1),
    Format("int-quantized", 8, -1, zeros=True),
]


def name_of(f: Format) -> str:
    return f"{f.layout}-int{f.bits}-{f.group}-{'zeros' if f.zeros else 'symmetric'}"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(32, 64), (13, 21), (8, 8)])
def test_words(bits: int, axis: int, shape: tuple[int, int]) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    codes = np.random.default_rng(0).integers(0, 2**bits, size=shape)
    signed = torch.from_numpy((codes - 2 ** (bits - 1)).astype(np.int8))
    np.testing.assert_array_equal(
        words(codes, bits, axis), pack_to_int32(signed, bits, packed_dim=axis).numpy()
    )


@pytest.mark.parametrize("f", FORMATS, ids=name_of)
def test_weights(f: Format) -> None:
    """What the package makes of a module's tensors is what they are here to stand for."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    exact = replace(f, scales="float32")
    rng = np.random.default_rng(1)
    matrix = random_matrix(rng, (48, 256), exact, group_indices(rng, 256, exact))
    state = {name: torch.from_numpy(a) for name, a in tensors_of(matrix, exact).items()}
    group = config_of(exact)["config_groups"]["group_0"]
    scheme = QuantizationScheme(targets=["Linear"], weights=group["weights"])
    compressor = BaseCompressor.get_value_from_registry(f.layout)
    weight = compressor.decompress(state, scheme)["weight"]
    np.testing.assert_array_equal(weight.numpy(), matrix.values().astype(np.float32))


@pytest.mark.parametrize("f", [f for f in FORMATS if f.layout == "pack-quantized" and not f.zeros])
def test_logits(tmp_path: Path, f: Format) -> None:
    """Transformers, in float32, over the same files (those that it loads)."""
    config = tiny_config(hidden_size=128, intermediate_size=256)
    folder = make_checkpoint(tmp_path, config, f).save()
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = peer(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(expected).max() > 0.5
    found = LlamaForCausalLM.from_pretrained(folder)(IDS).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
