"""What loading a checkpoint takes: memory, and a progress that moves within large matrices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import LlamaForCausalLM, engine
from tiny import tiny_config

MB = 1_000_000


def write_checkpoint(directory: Path, dtype: str, **fields: Any) -> Path:
    """Weights of zeros, in a file that has their size."""
    config = tiny_config(**fields)
    config.save_pretrained(directory)
    state = {p.name: np.zeros(p.shape, dtype) for p in engine.parameters(config)}
    infinilm.engine.save_safetensors(directory / "model.safetensors", state)
    return directory


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("large")
    yield write_checkpoint(
        directory,
        "float16",
        vocab_size=40000,  # 82 MB in one matrix
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
    )
    (directory / "model.safetensors").unlink()


MEASURE = """
import json, sys
import infinilm

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

directory, dtype = sys.argv[1:]
infinilm.LlamaForCausalLM.from_pretrained(infinilm.sample_model()).forward([1, 2, 3])
before = kilobytes("VmRSS")
model = infinilm.LlamaForCausalLM.from_pretrained(directory, dtype=dtype)
cache = model.new_cache()
model.forward([1, 2, 3], cache, logits_to_keep=1)
print(json.dumps({
    "peak": (kilobytes("VmHWM") - before) * 1024,
    "held": model.nbytes + cache.nbytes(),
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured in Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peak_is_what_is_held_and_a_little(large: Path, dtype: str) -> None:
    """Resident pages of the mapped file count; so does a matrix of a quarter of the model."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(large), dtype], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["held"] > 250 * MB
    assert found["peak"] < 1.05 * found["held"] + 8 * MB, found


def test_progress_moves_within_a_matrix(large: Path) -> None:
    calls: list[tuple[int, int]] = []
    LlamaForCausalLM.from_pretrained(large, progress=lambda *call: calls.append(call))
    done = [0] + [d for d, _ in calls]
    total = sum(2 * int(np.prod(p.shape)) for p in engine.parameters(tiny_config_of(large)))
    assert {t for _, t in calls} == {total}
    assert done[-1] == total
    steps = np.diff(done)
    assert np.all(steps >= 0)
    assert np.max(steps) < 20 * MB


def tiny_config_of(directory: Path) -> infinilm.LlamaConfig:
    return infinilm.LlamaConfig.from_pretrained(directory)


def test_what_was_packed_can_be_read_again(tmp_path: Path) -> None:
    """Letting go of a file's pages forgets nothing."""
    directory = write_checkpoint(tmp_path, "float32", hidden_size=256, vocab_size=3000)
    state = infinilm.engine.load_checkpoint(directory)
    values = {}
    for i, (name, tensor) in enumerate(state.items()):
        values[name] = np.full(tensor.shape, i, np.float32)
    infinilm.engine.save_safetensors(directory / "model.safetensors", values)
    state = infinilm.engine.load_checkpoint(directory)
    model = LlamaForCausalLM(infinilm.LlamaConfig.from_pretrained(directory))
    for _ in range(2):
        model.load_state_dict(state)
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensor.numpy(), values[name])
            np.testing.assert_array_equal(model.get_parameter(name).numpy(), values[name])


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_parts_of_different_types(compute: str, tmp_path: Path) -> None:
    """q, k and v stored each in its own type are packed together."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    config = tiny_config(dtype=compute)
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {
        p.name: rng.normal(size=p.shape).astype(np.float32) for p in engine.parameters(config)
    }
    kinds = {"q_proj": np.float16, "k_proj": ml_dtypes.bfloat16, "up_proj": ml_dtypes.bfloat16}
    for name, values in state.items():
        for part, kind in kinds.items():
            if part in name:
                state[name] = values.astype(kind)
    config.save_pretrained(tmp_path)
    infinilm.engine.save_safetensors(tmp_path / "model.safetensors", state)
    calls: list[tuple[int, int]] = []
    mixed = LlamaForCausalLM.from_pretrained(tmp_path, progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1]
    wide = LlamaForCausalLM(config)
    wide.load_state_dict({name: values.astype(np.float32) for name, values in state.items()})
    np.testing.assert_array_equal(mixed.forward([1, 2, 3]).numpy(), wide.forward([1, 2, 3]).numpy())
