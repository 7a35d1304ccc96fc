"""The Python class around the engine's model: inputs, weights, hooks, lifetime."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import HookRegistry, LlamaForCausalLM, Tensor
from text_models import byte_level, write_model
from tiny import LONGEST, VOCAB, random_state, tiny_config

IDS = [5, 9, 33, 7]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return make_model()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), byte_level())


def make_model(seed: int = 0, **fields: Any) -> LlamaForCausalLM:
    config = tiny_config(**fields)
    model = LlamaForCausalLM(config)
    model.load_state_dict(random_state(config, seed))
    return model


@pytest.mark.parametrize(
    "ids",
    [
        IDS,
        tuple(IDS),
        np.array(IDS),
        np.array(IDS, np.int32),
        np.array(IDS, np.uint8),
        np.array(IDS, np.uint64),
        np.array([5, 0, 9, 0, 33, 0, 7, 0])[::2],
        [np.int64(i) for i in IDS],
        [np.array(i) for i in IDS],
        Tensor.from_numpy(np.array(IDS)),
        range(4),
    ],
    ids=lambda ids: f"{type(ids).__name__}-{getattr(ids, 'dtype', '')}",
)
def test_one_sequence(model: LlamaForCausalLM, ids: Any) -> None:
    logits = model.forward(ids)
    assert logits.shape == (4, VOCAB)
    assert str(logits.dtype) == "float32"
    np.testing.assert_array_equal(logits.numpy(), model(np.asarray(ids).tolist()).numpy())


@pytest.mark.parametrize(
    "batch",
    [
        [IDS, IDS[::-1]],
        [np.array(IDS), tuple(IDS[::-1])],
        np.array([IDS, IDS[::-1]]),
        ([*IDS], IDS[::-1]),
    ],
)
def test_rectangular_batch(model: LlamaForCausalLM, batch: Any) -> None:
    logits = model.forward(batch)
    assert logits.shape == (2, 4, VOCAB)
    for row, ids in zip(logits.numpy(), (IDS, IDS[::-1]), strict=True):
        np.testing.assert_allclose(row, model(ids).numpy(), rtol=0, atol=2e-5)


def test_torch_tensors(model: LlamaForCausalLM) -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.int64, torch.int32, torch.uint8):
        logits = model.forward(torch.tensor(IDS, dtype=dtype))
        np.testing.assert_array_equal(logits.numpy(), model(IDS).numpy())
    assert model.forward([torch.tensor(IDS), torch.tensor(IDS)]).shape == (2, 4, VOCAB)
    with pytest.raises(TypeError, match="float32"):
        model.forward(torch.ones(3))
    with pytest.raises(TypeError, match="bool"):
        model.forward(torch.ones(3) > 0)


@pytest.mark.parametrize(
    ("ids", "kind", "text"),
    [
        ([], ValueError, "empty"),
        ([[]], ValueError, r"input_ids\[0\] is empty"),
        ([[1], []], ValueError, r"input_ids\[1\] is empty"),
        (np.zeros((0,), int), ValueError, "empty"),
        (np.zeros((2, 0), int), ValueError, "empty"),
        ([[1, 2], [3]], ValueError, r"different lengths.*generate\(\)"),
        (np.zeros((1, 1, 1), int), ValueError, "shape"),
        ([[[1]]], TypeError, "not list"),
        (3, TypeError, "found int"),
        (np.int64(3), TypeError, "found int64"),
        (np.array(3), ValueError, "shape"),
        ("abc", TypeError, "found str"),
        (b"abc", TypeError, "found bytes"),
        (None, TypeError, "found NoneType"),
        ({1, 2}, TypeError, "found set"),
        ({1: 2}, TypeError, "found dict"),
        ([1.0], TypeError, r"input_ids\[0\] must be an int, not float"),
        ([1, True], TypeError, r"input_ids\[1\] must be an int, not bool"),
        ([1, np.bool_(True)], TypeError, "not bool"),
        ([1, "2"], TypeError, "not str"),
        ([1, None], TypeError, "not NoneType"),
        ([1, [2]], TypeError, "mixed"),
        ([[1, 2], [3, 0.5]], TypeError, r"input_ids\[1\]\[1\] must be an int, not float"),
        (np.array([1.0]), TypeError, "float64"),
        (np.array([True]), TypeError, "bool"),
        (np.array(["a"]), TypeError, "ints"),
        (np.array([1, None]), TypeError, "object"),
        ([2**63], OverflowError, "64 bits"),
        (np.array([2**63], np.uint64), OverflowError, "64 bits"),
        ([VOCAB], IndexError, str(VOCAB)),
        ([-1], IndexError, "-1"),
        (list(range(LONGEST + 1)), ValueError, str(LONGEST)),
    ],
)
def test_bad_ids(model: LlamaForCausalLM, ids: Any, kind: type, text: str) -> None:
    if kind is ValueError and str(LONGEST) == text:
        ids = [0] * (LONGEST + 1)
    with pytest.raises(kind, match=text):
        model.forward(ids)
    assert model.forward(IDS).shape == (4, VOCAB)


def test_logits_to_keep(model: LlamaForCausalLM) -> None:
    full = model.forward(IDS).numpy()
    np.testing.assert_allclose(
        model.forward(IDS, logits_to_keep=1).numpy(), full[-1:], rtol=0, atol=2e-5
    )
    assert model.forward([IDS, IDS], logits_to_keep=3).shape == (2, 3, VOCAB)


def test_cache_takes_up_the_tokens(model: LlamaForCausalLM) -> None:
    full = model.forward(IDS).numpy()
    cache = model.new_cache()
    first = model.forward(IDS[:3], cache).numpy()
    last = model.forward(IDS[3:], cache=cache).numpy()
    np.testing.assert_allclose(np.concatenate([first, last]), full, rtol=0, atol=2e-5)
    assert cache.length() == 4
    assert list(cache.tokens()) == IDS
    assert model.new_cache(3).batch_size() == 3


def test_state_dict_round_trip(model: LlamaForCausalLM) -> None:
    state = model.state_dict()
    assert set(state) == set(model.parameter_names())
    other = LlamaForCausalLM(tiny_config())
    with pytest.raises(RuntimeError, match="weights"):
        other.forward(IDS)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(IDS).numpy(), model(IDS).numpy())
    expected = random_state(tiny_config())
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])
        np.testing.assert_array_equal(model.get_parameter(name).numpy(), expected[name])


def test_load_state_dict_of_torch_and_views(model: LlamaForCausalLM) -> None:
    torch = pytest.importorskip("torch")
    state: dict[str, Any] = {
        name: torch.nn.Parameter(torch.from_numpy(values))
        for name, values in random_state(tiny_config()).items()
    }
    name = "model.embed_tokens.weight"
    state[name] = np.asfortranarray(random_state(tiny_config())[name])
    other = LlamaForCausalLM(tiny_config())
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(IDS).numpy(), model(IDS).numpy())


def test_refused_state_leaves_the_model(model: LlamaForCausalLM) -> None:
    other = make_model()
    state: dict[str, Any] = random_state(tiny_config(), seed=1)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=name):
        other.load_state_dict({k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError, match="surprise"):
        other.load_state_dict({**state, "surprise": state[name]})
    with pytest.raises(ValueError, match=name):
        other.load_state_dict({**state, name: state[name].T})
    with pytest.raises(TypeError, match="must be a Tensor, a NumPy array or a torch tensor"):
        other.load_state_dict({**state, name: state[name].tolist()})
    with pytest.raises(KeyError, match=name):
        other.get_parameter(name.replace("up_proj", "up_prj"))
    np.testing.assert_array_equal(other(IDS).numpy(), model(IDS).numpy())


def test_facts(model: LlamaForCausalLM) -> None:
    assert model.config == tiny_config()
    assert str(model.device) == "cpu"
    assert model.num_parameters() == sum(v.size for v in random_state(tiny_config()).values())
    assert model.nbytes >= 4 * model.num_parameters()
    assert "2 layers" in repr(model)
    assert "float32" in repr(model)
    tied = make_model(tie_word_embeddings=True)
    assert tied.num_parameters() == model.num_parameters() - VOCAB * 32


def test_from_pretrained(directory: Path) -> None:
    calls: list[tuple[int, int]] = []
    model = LlamaForCausalLM.from_pretrained(
        directory, progress=lambda done, total: calls.append((done, total))
    )
    assert isinstance(model, LlamaForCausalLM)
    assert calls
    assert all(done <= total for done, total in calls)
    assert calls[-1][0] == calls[-1][1]
    assert model.tokenizer is model.tokenizer
    assert str(directory) in repr(model)
    same = LlamaForCausalLM.from_pretrained(str(directory), "cpu", "float32", progress=True)
    np.testing.assert_array_equal(model(IDS).numpy(), same(IDS).numpy())
    for dtype in ("bfloat16", infinilm.DataType.BF16, "torch.bfloat16"):
        rounded = LlamaForCausalLM.from_pretrained(directory, dtype=dtype)
        assert str(rounded.config.dtype) == "bfloat16"
        assert rounded(IDS).numpy().dtype == np.float32


def test_float16_computes_in_float32(directory: Path) -> None:
    config = infinilm.LlamaConfig.from_pretrained(directory)
    config.dtype = "float16"
    model = LlamaForCausalLM(config)
    assert str(model.config.dtype) == "float32"
    config.dtype = "int8"
    with pytest.raises(ValueError, match="int8"):
        LlamaForCausalLM(config)


def test_from_pretrained_refuses(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LlamaForCausalLM.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="float16"):
        LlamaForCausalLM.from_pretrained(directory, dtype="float16")
    with pytest.raises(RuntimeError, match=r"(?i)cuda"):
        LlamaForCausalLM.from_pretrained(directory, "cuda")

    class StopError(Exception):
        pass

    def progress(done: int, total: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        LlamaForCausalLM.from_pretrained(directory, progress=progress)


def test_no_tokenizer(model: LlamaForCausalLM) -> None:
    with pytest.raises(RuntimeError, match="has no tokenizer"):
        _ = model.tokenizer
    with pytest.raises(RuntimeError, match="has no tokenizer"):
        model.generate("text")


def test_hook_registry(model: LlamaForCausalLM) -> None:
    seen: list[tuple[str, tuple[int, ...], int]] = []
    registry = HookRegistry()
    registry.register_hook("layer#_mlp", lambda n, t, i: seen.append((n, t.shape, i)))
    model.set_hook_registry(registry)
    assert model.hook_registry is registry
    model(IDS)
    assert seen == [("layer0_mlp", (4, 32), 0), ("layer1_mlp", (4, 32), 1)]
    seen.clear()
    model.set_hook_registry(registry, "left")
    model(IDS)
    assert [name for name, *_ in seen] == ["left_layer0_mlp", "left_layer1_mlp"]
    seen.clear()
    model.set_hook_registry(None)
    assert model.hook_registry is None
    model(IDS)
    assert not seen
    names = [point.name for point in model.hook_points()]
    assert names[0] == "embed_tokens"
    assert names[-1] == "logits"


def test_hook_edits_and_errors(model: LlamaForCausalLM) -> None:
    plain = model(IDS).numpy().copy()
    registry = HookRegistry()

    def double(name: str, tensor: Tensor, layer_idx: int) -> None:
        values = tensor.numpy()
        values *= 2

    handle = registry.register_hook("layer0_mlp", double)
    model.set_hook_registry(registry)
    try:
        assert np.abs(model(IDS).numpy() - plain).max() > 1e-3
        handle.remove()
        error = KeyError("mine")

        def fail(name: str, tensor: Tensor, layer_idx: int) -> None:
            raise error

        registry.register_hook("layer1_output", fail)
        with pytest.raises(KeyError) as caught:
            model.generate([IDS])
        assert caught.value is error
        assert caught.traceback[-1].name == "fail"
    finally:
        model.set_hook_registry(None)
    np.testing.assert_array_equal(model(IDS).numpy(), plain)


def test_cycles_are_collected() -> None:
    model = make_model()
    registry = HookRegistry()
    registry.register_hook("logits", lambda n, t, i, model=model, r=registry: None)
    model.set_hook_registry(registry)
    stream = model.stream(IDS, logits_processor=lambda tokens, logits, model=model: None)
    next(stream)
    model.loop = (model, stream)  # type: ignore[attr-defined]
    gone = [weakref.ref(model), weakref.ref(registry)]
    del model, registry, stream
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_models_at_interpreter_exit(directory: Path) -> None:
    code = (
        "import infinilm, threading\n"
        f"model = infinilm.LlamaForCausalLM.from_pretrained({str(directory)!r})\n"
        "registry = infinilm.HookRegistry()\n"
        "registry.register_hook('logits', lambda *a: model)\n"
        "model.set_hook_registry(registry)\n"
        "stream = model.stream([1, 2, 3]); next(stream)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
