"""A CUDA device gives what the CPU gives: logits, every hook point, generation, edits, errors.

Captures have test_cuda_captures.py. Skipped, with the reason, where there is no such device.
"""

from __future__ import annotations

import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from device_pair import IDS, Array, assert_close, pair
from devices import IS_EMULATED, NO_CUDA, needs_cuda, needs_gpu, needs_two
from infinilm import HookRegistry, LlamaForCausalLM, Tensor, engine
from quantized_formats import Format, make_checkpoint
from tiny import tiny_config

pytestmark = [
    needs_cuda,
    # cuBLASLt makes large products faster; all of this holds without it.
    pytest.mark.filterwarnings("ignore:cuBLASLt"),
]

BATCH = [IDS, IDS[::-1]]
RAGGED = [IDS, IDS[:1], IDS[2:7]]

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True},
    "qk norm": {"qk_norm": True},
    "decoupled head": {"decoupled_head_dim": True, "head_dim": 24},
    "odd head": {"decoupled_head_dim": True, "head_dim": 10},
    "multi-head": {"num_key_value_heads": 4},
    "multi-query": {"num_key_value_heads": 1},
    "window": {"sliding_window": 3},
    "tied": {"tie_word_embeddings": True},
    "gelu": {"hidden_act": "gelu"},
    "wide": {"hidden_size": 256, "intermediate_size": 544, "num_attention_heads": 8},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "dynamic rope": {
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
        "max_position_embeddings": 6,
    },
    "llama3 rope": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "yarn rope": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "longrope": {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [2.0, 2.5, 3.0, 4.0],
            "original_max_position_embeddings": 6,
        }
    },
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ids", [IDS, BATCH], ids=["sequence", "batch"])
def test_logits(name: str, ids: Any) -> None:
    on_cpu, on_cuda = pair(**CONFIGS[name])
    logits = on_cuda.forward(ids)
    assert logits.device == "cuda:0"
    assert str(logits.dtype) == "float32"
    assert_close(logits.numpy(), on_cpu.forward(ids).numpy())


@pytest.mark.parametrize("name", CONFIGS)
def test_decode_step_by_step(name: str) -> None:
    """Long enough for steps to be recorded, and across the edge of a block of the cache."""
    longest = 6 if "max_position_embeddings" in CONFIGS[name] else 75
    fields = {"max_position_embeddings": 80, **CONFIGS[name]}
    on_cpu, on_cuda = pair(**fields)
    caches = on_cpu.new_cache(), on_cuda.new_cache()
    ids = np.random.default_rng(0).integers(0, 61, longest)
    for token in ids:
        expected = on_cpu.forward([token], caches[0]).numpy()
        assert_close(on_cuda.forward([token], caches[1]).numpy(), expected)
    assert caches[0].tokens() == caches[1].tokens() == ids.tolist()


@pytest.mark.parametrize(
    "name", ["layer1_mlp", "layer0_output", "layer*_attention_scores", "logits"]
)
def test_a_hook_is_heard_after_steps_that_nobody_watched(name: str) -> None:
    """Those are recorded; a hook on another model leaves them so, and one on this model ends it at once."""
    _, model = pair()
    _, other = pair()
    registry = infinilm.HookRegistry()
    heard: list[str] = []
    model.set_hook_registry(registry, "ours")
    other.set_hook_registry(registry, "theirs")
    registry.register_hook("theirs_layer0_mlp", lambda name, tensor, layer: heard.append(name))
    cache = model.new_cache()
    for token in range(8):
        model.forward([token], cache)
    assert heard == []
    handle = registry.register_hook(name, lambda name, tensor, layer: heard.append(name))
    model.forward([1], cache)
    assert heard
    assert all(point.startswith("ours_") for point in heard)
    assert handle.calls == len(heard)


def test_decode_of_a_batch_and_of_two_caches_in_turn() -> None:
    on_cpu, on_cuda = pair()
    one, other, reference = on_cuda.new_cache(2), on_cuda.new_cache(2), on_cpu.new_cache(2)
    for step in range(8):
        ids = [[step], [2 * step + 1]]
        expected = on_cpu.forward(ids, reference).numpy()
        kept = on_cuda.forward(ids, one)
        again = on_cuda.forward(ids, other)
        assert_close(kept.numpy(), expected)
        np.testing.assert_array_equal(kept.numpy(), again.numpy())


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
def test_cache_formats(kv_dtype: str) -> None:
    on_cpu, on_cuda = pair()
    caches = [m.new_cache(dtype=kv_dtype) for m in (on_cpu, on_cuda)]
    for ids in (IDS, [7], [8]):
        expected = on_cpu.forward(ids, caches[0]).numpy()
        # A cache that rounds makes steps of its own of differences however small.
        tolerance = {"float32": 1e-4, "bfloat16": 2**-6, "int8": 2**-6}[kv_dtype]
        assert_close(on_cuda.forward(ids, caches[1]).numpy(), expected, tolerance)


def distance(found: Tensor, expected: Tensor) -> float:
    return float(np.sqrt(np.mean((found.numpy() - expected.numpy()) ** 2)))


def test_bfloat16_is_as_near_to_the_truth_as_the_cpu_is() -> None:
    exact, _ = pair()
    on_cpu, on_cuda = pair(dtype="bfloat16")
    for ids in (IDS, BATCH):
        truth = exact.forward(ids)
        error = distance(on_cpu.forward(ids), truth)
        assert 0 < error < 0.1
        # Queries and attention weights are rounded here too.
        assert distance(on_cuda.forward(ids), truth) < 2 * error


@needs_gpu
def test_float16() -> None:
    exact, _ = pair()
    _, on_cuda = pair(dtype="float16")
    assert str(on_cuda.config.dtype) == "float16"
    for ids in (IDS, BATCH):
        assert_close(on_cuda.forward(ids).numpy(), exact.forward(ids).numpy(), 2**-8)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ids", [IDS, BATCH], ids=["sequence", "batch"])
def test_every_hook_point(name: str, ids: Any) -> None:
    def capture(model: LlamaForCausalLM) -> list[tuple[str, Tensor]]:
        seen: list[tuple[str, Tensor]] = []
        registry = HookRegistry()
        registry.register_hook("*", lambda name, tensor, layer: seen.append((name, tensor)))
        model.set_hook_registry(registry)
        model.forward(ids)
        model.set_hook_registry(None)
        return seen

    on_cpu, on_cuda = pair(**CONFIGS[name])
    expected, found = capture(on_cpu), capture(on_cuda)
    assert [n for n, _ in found] == [n for n, _ in expected]
    for (point, tensor), (_, reference) in zip(found, expected, strict=True):
        assert tensor.device == "cuda:0", point
        assert tensor.shape == reference.shape, point
        assert_close(tensor.numpy(), reference.numpy())


@pytest.mark.parametrize(
    "point",
    ["embed_tokens", "layer0_mlp", "layer1_attention_weights", "layer0_attention_q_after_rope",
     "layer1_mlp_gate_proj", "before_final_norm", "logits"],
)  # fmt: skip
def test_edits(point: str) -> None:
    """What copy_from writes is what the rest of the model sees, as on the CPU."""

    def change(name: str, tensor: Tensor, layer: int) -> None:
        tensor.copy_from(np.array(tensor.numpy()) / 2 + np.float32(0.3))

    results = []
    for model in pair():
        plain = model.forward(IDS).numpy()
        registry = HookRegistry()
        registry.register_hook(point, change)
        model.set_hook_registry(registry)
        results.append(model.forward(IDS).numpy())
        assert not np.allclose(results[-1], plain)
    assert_close(results[1], results[0])


def test_a_hook_that_raises_leaves_the_model_as_it_was() -> None:
    _, model = pair()
    cache = model.new_cache()
    plain = model.forward(IDS, cache).numpy()
    registry = HookRegistry()
    model.set_hook_registry(registry)

    def fail(name: str, tensor: Tensor, layer: int) -> None:
        raise KeyError(name)

    handle = registry.register_hook("layer1_mlp", fail)
    with pytest.raises(KeyError, match="layer1_mlp"):
        model.forward([7], cache)
    handle.remove()
    assert cache.length() == len(IDS)
    cache.clear()
    assert np.array_equal(model.forward(IDS, cache).numpy(), plain)


@pytest.fixture(scope="module")
def sample() -> tuple[Any, ...]:
    """In float32: bfloat16 rounds differences however small to steps that may change a token."""
    return tuple(
        infinilm.load(infinilm.sample_model(), device=device, dtype="float32")
        for device in ("cpu", "cuda")
    )


def test_greedy_tokens_of_the_sample_model(sample: tuple[Any, ...]) -> None:
    on_cpu, on_cuda = sample
    for prompts in ("ROMEO:\n", ["KING:\n", "First Citizen:\nWe are", "O"]):
        expected = on_cpu.generate(prompts, max_new_tokens=80)
        assert on_cuda.generate(prompts, max_new_tokens=80) == expected


def test_sampling_penalties_and_probabilities(sample: tuple[Any, ...]) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 30, "temperature": 0.8, "top_k": 20, "seed": 3,
        "repetition_penalty": 1.1, "logprobs": True, "prompt_logprobs": True,
    }  # fmt: skip
    expected, found = (m.generate("Speak, speak.", **options) for m in sample)
    assert found.texts == expected.texts
    np.testing.assert_allclose(found.logprobs[0], expected.logprobs[0], atol=1e-3)
    np.testing.assert_allclose(found.prompt_logprobs[0], expected.prompt_logprobs[0], atol=1e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "logprobs": True},
    "all tokens": {"temperature": 1.0, "top_k": 0},
    "top_k": {"temperature": 0.9, "top_k": 50, "logprobs": True},
    "top_p": {"temperature": 1.2, "top_k": 0, "top_p": 0.8},
    "min_p": {"temperature": 1.5, "top_k": 0, "min_p": 0.05, "logprobs": True},
    "all of them": {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    "greedy, penalties": {"temperature": 0, "repetition_penalty": 1.3},
    "penalties": {"temperature": 0.9, "presence_penalty": 0.4, "frequency_penalty": 0.1},
    "penalties, logprobs": {"temperature": 0.9, "repetition_penalty": 1.2, "logprobs": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_chosen_as_on_the_cpu(sample: tuple[Any, ...], name: str) -> None:
    """Where the logits are, unless somebody on the host has to see them."""
    prompts = ["KING:\n", "First Citizen:\nWe are", "O"]
    options: dict[str, Any] = {"max_new_tokens": 25, "seed": 5, **SETTINGS[name]}
    expected, found = (m.generate(prompts, **options, return_dict_in_generate=True) for m in sample)
    assert found.texts == expected.texts
    for ours, theirs in zip(found.logprobs or [], expected.logprobs or [], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_logits_processor_is_called_on_the_host(sample: tuple[Any, ...]) -> None:
    def only_even(tokens: Any, logits: Array) -> None:
        logits[1::2] = -np.inf

    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.8, "seed": 2}
    expected, found = (m.generate([3, 1, 4], logits_processor=only_even, **options) for m in sample)
    assert found.tolist() == expected.tolist()
    assert all(token % 2 == 0 for token in found[3:])


def test_stream(sample: tuple[Any, ...]) -> None:
    on_cpu, on_cuda = sample
    expected = "".join(on_cpu.stream("JULIET:\n", max_new_tokens=40))
    assert "".join(on_cuda.stream("JULIET:\n", max_new_tokens=40)) == expected


def test_ragged_batches() -> None:
    on_cpu, on_cuda = pair()
    options: dict[str, Any] = {"max_new_tokens": 20}
    expected, found = (m.generate(RAGGED, **options) for m in (on_cpu, on_cuda))
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


def test_what_is_not_finite_is_told_as_on_the_cpu() -> None:
    def spoil(name: str, tensor: Tensor, layer: int) -> None:
        values = np.array(tensor.numpy())
        values[..., 4] = np.nan
        tensor.copy_from(values)

    for model in pair():
        registry = HookRegistry()
        registry.register_hook("logits", spoil)
        model.set_hook_registry(registry)
        with pytest.raises(RuntimeError, match="token 4 is NaN"):
            model.generate(IDS, max_new_tokens=2)


def test_weights_come_back_on_the_cpu() -> None:
    on_cpu, on_cuda = pair(attention_bias=True)
    expected, found = on_cpu.state_dict(), on_cuda.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.device == "cpu"
        np.testing.assert_array_equal(tensor.numpy(), expected[name].numpy())
    there = {name: tensor.to("cuda") for name, tensor in found.items()}
    on_cuda.load_state_dict(there)
    assert_close(on_cuda.forward(IDS).numpy(), on_cpu.forward(IDS).numpy())


@pytest.mark.parametrize(
    "f",
    [
        Format("pack-quantized", 4, 32, zeros=True),
        Format("pack-quantized", 8, 128, ordered=True),
        Format("gptq", 4, 32, ordered=True),
        Format("gptq_v2", 4, 128, zeros=True, ordered=True),
        Format("awq", 4, 32, zeros=True),
    ],
    ids=str,
)
def test_checkpoints_that_are_quantised(tmp_path: Path, f: Format) -> None:
    """As on the CPU, also with inputs in another order, and saved as the CPU saves them."""
    config = tiny_config(hidden_size=128, intermediate_size=160)
    folder = make_checkpoint(tmp_path, config, f).save()
    on_cpu, on_cuda = (LlamaForCausalLM.from_pretrained(folder, device=d) for d in ("cpu", "cuda"))
    for ids in (IDS, [7], BATCH * 9):  # few rows, one, and many
        assert_close(on_cuda.forward(ids).numpy(), on_cpu.forward(ids).numpy())
    expected = on_cpu.generate(IDS, max_new_tokens=12).tolist()
    assert on_cuda.generate(IDS, max_new_tokens=12).tolist() == expected
    for name, tensor in on_cuda.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), on_cpu.get_parameter(name).numpy())
    for model, name in ((on_cpu, "cpu"), (on_cuda, "cuda")):
        model.save_pretrained(tmp_path / name)
    saved = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cpu", "cuda")]
    assert saved[0] == saved[1]


@needs_two
def test_two_devices_in_one_process() -> None:
    on_cpu, first = pair("cuda:0")
    _, second = pair("cuda:1")
    expected = on_cpu.forward(IDS).numpy()
    caches = first.new_cache(), second.new_cache()
    for model, cache, device in zip((first, second), caches, ("cuda:0", "cuda:1"), strict=True):
        logits = model.forward(IDS, cache)
        assert logits.device == device
        assert_close(logits.numpy(), expected)
    moved = first.forward(IDS).to("cuda:1")
    assert moved.device == "cuda:1"
    assert_close(moved.numpy(), expected)
    with pytest.raises(ValueError, match="another model"):
        first.forward([1], caches[1])


def test_threads_share_a_device() -> None:
    on_cpu, on_cuda = pair()
    expected = on_cpu.generate(IDS, max_new_tokens=30).tolist()
    found: list[list[int]] = []

    def generate() -> None:
        found.append(on_cuda.generate(IDS, max_new_tokens=30).tolist())

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_tensors() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = Tensor.from_numpy(values).to("cuda")
    assert tensor.device == "cuda:0"
    assert tensor.device.type == "cuda"
    assert repr(tensor) == "Tensor(shape=(3, 4), dtype=float32, device=cuda:0)"
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert not tensor.numpy().flags.writeable
    assert tensor.to("cuda:0").__dlpack_device__() == (2, 0)
    with pytest.raises(TypeError, match=r"use \.numpy\(\) or \.to\('cpu'\)"):
        np.asarray(tensor)
    assert not hasattr(tensor, "__array_interface__")
    np.testing.assert_array_equal(tensor.clone().numpy(), values)
    np.testing.assert_array_equal(tensor.reshape((4, 3)).numpy(), values.reshape(4, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tensor)).numpy(), values)
    assert tensor.tolist() == values.tolist()
    assert tensor.to("cpu").to("cuda").device == "cuda:0"
    assert Tensor.empty((0, 3)).to("cuda").numpy().shape == (0, 3)


def test_dlpack_streams() -> None:
    tensor = Tensor.from_numpy(np.ones(3, np.float32)).to("cuda")
    for stream in (None, 1, 2, -1):
        assert "dltensor" in repr(tensor.__dlpack__(stream=stream))
    with pytest.raises(ValueError, match="found 0"):
        tensor.__dlpack__(stream=0)
    with pytest.raises(TypeError, match="expected None or an int"):
        tensor.__dlpack__(stream="1")
    with pytest.raises(BufferError, match="device"):
        tensor.__dlpack__(dl_device=(2, 7))
    host = Tensor.from_dlpack(tensor.__dlpack__(dl_device=(1, 0), max_version=(1, 0)))
    assert host.device == "cpu"
    assert host.tolist() == [1, 1, 1]


def test_our_own_dlpack_is_taken_without_a_copy() -> None:
    tensor = Tensor.from_numpy(np.zeros(3, np.float32)).to("cuda")
    same = Tensor.from_dlpack(tensor)
    assert same.device == "cuda:0"
    same.copy_from(np.array([1, 2, 3], np.float32))
    assert tensor.tolist() == [1, 2, 3]


def test_saving_tensors_of_a_device(tmp_path: Any) -> None:
    tensor = Tensor.from_numpy(np.arange(4, dtype=np.int64)).to("cuda")
    infinilm.save_safetensors(tmp_path / "t.safetensors", {"x": tensor})
    assert infinilm.load_safetensors(tmp_path / "t.safetensors")["x"].tolist() == [0, 1, 2, 3]


def test_nothing_is_left_behind() -> None:
    gc.collect()
    before = engine.live_objects()
    _, model = pair()
    registry = HookRegistry()
    registry.register_hook("layer0_output", lambda name, tensor, layer: tensor.numpy())
    model.set_hook_registry(registry)
    model.generate(IDS, max_new_tokens=12)
    model.set_hook_registry(None)
    model.generate(IDS, max_new_tokens=12)
    del model, registry, _
    gc.collect()
    assert engine.live_objects() == before


@pytest.mark.skipif(IS_EMULATED, reason="the emulation's memory is the host's")
def test_out_of_memory_is_told_and_survived() -> None:
    _, model = pair()
    with pytest.raises(RuntimeError, match=r"asked for \d+.*free"):
        operations_input = Tensor.from_numpy(np.zeros(1, np.uint8))
        big = np.lib.stride_tricks.as_strided(operations_input.numpy(), (1 << 20,), (0,))
        kept = []
        while True:  # until it is full
            kept.append(Tensor.from_numpy(np.ascontiguousarray(big).repeat(64)).to("cuda"))
    del kept
    assert np.isfinite(model.forward(IDS).numpy()).all()


def test_unknown_indices_and_dtypes() -> None:
    count = len(infinilm.cuda_devices())
    with pytest.raises(RuntimeError, match=rf"cuda:{count}.*this machine has {count} CUDA device"):
        Tensor.empty(1).to(f"cuda:{count}")
    with pytest.raises(ValueError, match="dtype"):
        LlamaForCausalLM(tiny_config(), device="cuda", kv_cache_dtype="int64")
    with pytest.raises(ValueError, match="int32"):
        LlamaForCausalLM(tiny_config(dtype="int32"), device="cuda")


@needs_gpu
def test_torch_edits_in_place() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    results = []
    for model in pair():
        registry = HookRegistry()

        def ablate(name: str, tensor: Tensor, layer: int) -> None:
            torch.from_dlpack(tensor).mul_(0.5)

        registry.register_hook("layer0_*", ablate)
        model.set_hook_registry(registry)
        results.append(model.forward(IDS).numpy())
    assert_close(results[1], results[0])


@needs_gpu
def test_what_torch_has_put_on_its_stream_comes_first() -> None:
    """Also for whoever reads, copies or overwrites in the same hook."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    _, model = pair()
    seen = []

    def look(name: str, tensor: Tensor, layer: int) -> None:
        theirs = torch.from_dlpack(tensor)
        for value in (1.0, 2.0, 3.0):
            torch.cuda._sleep(20_000_000)  # cycles
            theirs.fill_(value)
            if value == 1.0:
                seen.append(tensor.numpy())
            elif value == 2.0:
                seen.append(tensor.clone().numpy())
        tensor.copy_from(np.full(tensor.shape, 4.0, np.float32))
        seen.append(tensor.numpy())

    registry = HookRegistry()
    registry.register_hook("layer0_mlp", look)
    model.set_hook_registry(registry)
    model.forward(IDS)
    assert [np.unique(values).tolist() for values in seen] == [[1.0], [2.0], [4.0]]


@needs_gpu
def test_torch_memory_is_shared() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    theirs = torch.arange(6, dtype=torch.float32, device="cuda").reshape(2, 3)
    ours = Tensor.from_dlpack(theirs)
    assert ours.device == "cuda:0"
    theirs += 1
    torch.cuda.synchronize()
    assert ours.tolist() == [[1, 2, 3], [4, 5, 6]]
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    transposed = Tensor.from_dlpack(theirs.T)
    assert transposed.contiguous().tolist() == [[1, 4], [2, 5], [3, 6]]


def test_the_reason_is_empty_here() -> None:
    assert not NO_CUDA
    assert all(device.memory > 0 for device in infinilm.cuda_devices())
