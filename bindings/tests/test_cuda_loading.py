"""What asking for CUDA says where something is missing: a device, a plug-in, memory.

Needs no GPU. Each case is a process of its own. Memory is that of a device, or of the stand-in for one, which can be
made small.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import infinilm
import pytest
from devices import IS_EMULATED, IS_GUARDED, NO_CUDA, needs_cuda
from infinilm import LlamaForCausalLM, engine
from tiny import tiny_config

SCRIPT = """
import infinilm
try:
    print(infinilm.Tensor.empty(3).to("cuda:0").device)
except RuntimeError as error:
    print(type(error).__name__, error, sep=": ")
"""
# A library with the one symbol of a plug-in, of some other build.
STRANGE = """
struct Plugin { unsigned abi; void* functions[4]; };
const struct Plugin* infinilm_cuda_plugin(void) {
  static const struct Plugin plugin = {12345, {0}};
  return &plugin;
}
"""


def answer(plugin: str = "", script: str = SCRIPT) -> str:
    environment = {**os.environ, "INFINILM_CUDA_PLUGIN": plugin}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_opens_nothing() -> None:
    script = "import infinilm; print('infinilm_cuda' in open('/proc/self/maps').read())"
    assert answer("/nowhere/libinfinilm_cuda.so", script) == "False"


@pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
def test_without_a_device_the_reason_is_told() -> None:
    text = answer()
    assert text.startswith('RuntimeError: there is no device "cuda:0": ')
    known = (
        "built without CUDA",
        "NVIDIA driver",
        "reports no CUDA device",
        "is missing",
        "no file",
    )
    assert any(reason in text for reason in known), text
    with pytest.raises(RuntimeError, match=r"CUDA|NVIDIA"):
        infinilm.cuda_devices()


def test_a_plugin_that_is_not_there() -> None:
    text = answer("/nowhere/plugin.so")
    assert 'there is no file "/nowhere/plugin.so", which INFINILM_CUDA_PLUGIN names' in text


def test_a_plugin_that_is_no_library(tmp_path: Path) -> None:
    file = tmp_path / "plugin.so"
    file.write_text("not a library")
    text = answer(str(file))
    assert f'the CUDA plug-in "{file}" cannot be loaded: ' in text


def compiled(source: str, folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "plugin.c").write_text(source)
    library = folder / "plugin.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "plugin.c")], check=True
    )
    return library


def test_a_library_that_is_no_plugin(tmp_path: Path) -> None:
    library = compiled("int nothing;", tmp_path)
    text = answer(str(library))
    assert "is no CUDA plug-in of infinilm: it has no symbol infinilm_cuda_plugin" in text


def test_a_plugin_of_another_build(tmp_path: Path) -> None:
    library = compiled(STRANGE, tmp_path)
    text = answer(str(library))
    assert "belongs to another build of infinilm" in text
    assert "found 12345" in text


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    """Once what was missing is there, the device can be used."""
    script = (
        "import infinilm, os\n"
        "for name in ('/nowhere/a.so', '/nowhere/b.so'):\n"
        "    os.environ['INFINILM_CUDA_PLUGIN'] = name\n"
        "    try:\n        infinilm.Tensor.empty(1).to('cuda')\n"
        "    except RuntimeError as error:\n        print(name in str(error))\n"
    )
    assert answer(script=script).split() == ["True", "True"]


def test_models_and_operations_say_the_same(tmp_path: Path) -> None:
    script = (
        "import infinilm\nfrom infinilm import operations\n"
        "calls = [lambda: infinilm.load(infinilm.sample_model(), device='cuda'),\n"
        "         lambda: infinilm.LlamaForCausalLM(infinilm.LlamaConfig(), device='cuda'),\n"
        "         lambda: operations.softmax([[1.0]] and infinilm.Tensor.empty((1, 1)), 'cuda')]\n"
        "for call in calls:\n"
        "    try:\n        call()\n"
        "    except RuntimeError as error:\n        print('/nowhere/plugin.so' in str(error))\n"
    )
    assert answer("/nowhere/plugin.so", script).split() == ["True"] * 3


# ---- memory
def write_hollow_checkpoint(directory: Path, nbytes: int) -> None:
    """Write a model of about `nbytes` of bfloat16, in a file that is all holes."""
    hidden = 1024 if nbytes < 1 << 32 else 8192
    layers = nbytes // (2 * 16 * hidden**2)
    config = tiny_config(
        dtype="bfloat16", hidden_size=hidden, intermediate_size=4 * hidden,
        num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    config.save_pretrained(directory)
    tensors, end = {}, 0
    for p in engine.parameters(config):
        begin, end = end, end + 2 * p.shape[0] * (p.shape[1] if len(p.shape) == 2 else 1)
        tensors[p.name] = {
            "dtype": "BF16",
            "shape": list(p.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(tensors).encode()
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)


@needs_cuda
@pytest.mark.filterwarnings("ignore:cuBLASLt")
@pytest.mark.skipif(IS_EMULATED, reason="the emulation's memory is the host's")
@pytest.mark.skipif(Path("/dev/dxg").exists(), reason="under WSL nobody knows what would fit")
def test_weights_that_do_not_fit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    # So that int8 fits, with half of the device in use by others.
    write_hollow_checkpoint(tmp_path, infinilm.cuda_devices()[0].memory * 21 // 20)
    steps: list[int] = []
    with pytest.raises(RuntimeError) as error:
        LlamaForCausalLM.from_pretrained(
            tmp_path, "cuda", progress=lambda done, total: steps.append(done)
        )
    size = r"[0-9.]+ [KMGT]iB"
    fits = rf"{size} \(and leave {size} for the KV cache and steps\)"
    assert re.fullmatch(
        rf'out of memory on "cuda:0": the weights of .*model\.safetensors.* need {size} '
        rf"\(dtype bfloat16, quantization none\), {size} of {size} were free before loading; "
        rf'quantization="int8" would need {fits}; quantization="int4" would need {fits}',
        str(error.value),
    ), error.value
    assert steps == []


PREPARE = f"""
import os, re, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from infinilm import LlamaForCausalLM
from tiny import random_state, tiny_config

def give_device(nbytes):
    os.environ["INFINILM_TEST_DEVICE_BYTES"] = str(nbytes)

def refusal(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)
    raise AssertionError("did not run out of memory")

def loaded(device="cuda", **fields):
    config = tiny_config(**fields)
    model = LlamaForCausalLM(config, device=device)
    model.load_state_dict(random_state(config))
    return model

def numbers(pattern, text):
    return [int(n) for n in re.search(pattern, text).groups()]
"""
needs_limit = pytest.mark.skipif(not IS_GUARDED, reason="a device's memory cannot be made small")


def run_limited(script: str) -> None:
    assert answer(os.environ["INFINILM_CUDA_PLUGIN"], PREPARE + script) == ""


@needs_limit
def test_weights_are_refused_only_if_they_cannot_fit() -> None:
    """With just the bytes that they take they load, with one less they do not."""
    run_limited("""
for fields in ({}, {"dtype": "bfloat16"}, {"attention_bias": True, "tie_word_embeddings": True}):
    for quantization in (None, "int8", "int4"):
        config = tiny_config(**fields)
        state = random_state(config)
        def load(device):
            model = LlamaForCausalLM(config, device=device, quantization=quantization)
            model.load_state_dict(state)
            return model.nbytes
        nbytes = load("cpu")
        give_device(nbytes)
        assert load("cuda") == nbytes
        give_device(nbytes - 1)
        assert "the weights of the state dict need" in refusal(lambda: load("cuda"))
give_device(1000)
text = refusal(lambda: load("cuda"))
assert text.endswith('a device with more memory is needed, or device="cpu"'), text
""")


@needs_limit
def test_checkpoints_that_are_quantised_already_are_counted_as_they_are(tmp_path: Path) -> None:
    run_limited(f"""
from pathlib import Path
from quantized_formats import Format, make_checkpoint
config = tiny_config(hidden_size=128, intermediate_size=160)
for format in (Format("gptq", zeros=True), Format("pack-quantized", bits=8, group=-1)):
    folder = make_checkpoint(Path({str(tmp_path)!r}), config, format).save()
    for quantization in (None, "int8"):  # of the embedding and the head
        def load(device):
            return LlamaForCausalLM.from_pretrained(folder, device, quantization=quantization)
        nbytes = load("cpu").nbytes
        give_device(nbytes)
        assert load("cuda").nbytes == nbytes
        give_device(nbytes - 1)
        text = refusal(lambda: load("cuda"))
        rounded = "int8 by rows" if quantization else "the checkpoint's"
        assert f"quantization {{rounded}})" in text, text
""")


@needs_limit
def test_memory_that_goes_while_weights_are_read() -> None:
    """To somebody else: the same is told then, with what was asked for last."""
    run_limited("""
import infinilm
sample = infinilm.sample_model()
def load(progress):
    return LlamaForCausalLM.from_pretrained(sample, "cuda", progress=progress)
give_device(1 << 28)
text = refusal(lambda: load(lambda done, total: give_device(1000)))
assert re.match(
    r'out of memory on "cuda:0": asked for .*, 0 bytes of 1000 bytes are free; the weights of '
    r'.* need .*, 256 MiB of 256 MiB were free before loading; quantization="int8"', text), text
give_device(1 << 28)
assert load(None).forward([1]).shape[0] == 1
""")


@needs_limit
def test_a_step_says_how_many_tokens_would_fit() -> None:
    """And they do; the cache and the model go on as if nothing had happened."""
    run_limited("""
config = tiny_config(max_position_embeddings=10000)
state = random_state(config)
reference = LlamaForCausalLM(config)
reference.load_state_dict(state)
give_device(reference.nbytes + 2_000_000)
model = LlamaForCausalLM(config, device="cuda")
model.load_state_dict(state)
cache = model.new_cache(2)
model.forward([[1, 2, 3]] * 2, cache)
before = cache.nbytes()
text = refusal(lambda: model.forward([[4] * 8000] * 2, cache, logits_to_keep=1))
assert "16000 new tokens in 2 sequences, after up to 3 in the KV cache" in text, text
assert "384 bytes a token in float32 (128 bytes with kv_cache_dtype=\\"int8\\")" in text, text
at_once, in_all = numbers(r"about (\\d+) new tokens in one step, about (\\d+) more", text)
assert 100 < at_once < in_all < 8000
assert cache.tokens() == [1, 2, 3] and cache.nbytes() == before

ids = np.random.default_rng(0).integers(0, 61, in_all).tolist()
model.forward([ids[:at_once]] * 2, cache, logits_to_keep=1)
for token in ids[at_once:]:
    logits = model.forward([[token]] * 2, cache)
expected = reference.forward([1, 2, 3, *ids], logits_to_keep=1).numpy()
np.testing.assert_allclose(logits.numpy()[1], expected, atol=1e-3)

text = refusal(lambda: [model.forward([[4]] * 2, cache) for _ in range(200)])
assert "about 0 more in steps of one token" in text, text
for slot in range(2):
    cache.truncate(100, slot)
logits = model.forward([[7]] * 2, cache)
expected = reference.forward([1, 2, 3, *ids[:97], 7], logits_to_keep=1).numpy()
np.testing.assert_allclose(logits.numpy()[1], expected, atol=1e-3)
""")


@needs_limit
def test_a_prompt_leaves_its_memory_to_the_steps_after_it() -> None:
    """What a large step has left idle is not missing in the next one, which needs other sizes."""
    run_limited("""
model = loaded(max_position_embeddings=10000)
prompt = [5] * 3000
for kilobytes in range(1000, 20000, 50):
    give_device(model.nbytes + 1000 * kilobytes)
    try:
        cache = model.new_cache()
        model.forward(prompt, cache, logits_to_keep=1)
        break
    except RuntimeError:
        pass
else:
    raise AssertionError("no memory is enough")
for token in range(50):
    model.forward([token], cache)
assert len(model.generate([1, 2], max_new_tokens=5)) == 7
""")


@needs_limit
def test_who_keeps_the_exception_keeps_no_memory() -> None:
    """As a REPL does: its traceback holds the generation, which must not hold the device's memory."""
    run_limited("""
model = loaded(max_position_embeddings=100000)
give_device(model.nbytes + 200000)
kept = None
try:
    model.generate([1], max_new_tokens=90000)
except RuntimeError as error:
    kept = error
assert "out of memory" in str(kept)
assert len(model.generate([1], max_new_tokens=5)) == 6
""")


@needs_limit
def test_what_one_model_has_to_spare_is_for_another() -> None:
    run_limited("""
one = loaded(max_position_embeddings=10000)
give_device(1 << 30)
one.forward([5] * 1500)
give_device(2 * one.nbytes + 100000)
other = loaded(max_position_embeddings=10000)
assert np.array_equal(other.forward([1, 2]).numpy(), one.forward([1, 2]).numpy())
""")


@needs_limit
def test_choosing_tokens_finds_what_lies_idle() -> None:
    run_limited("""
model = loaded(vocab_size=20000, max_position_embeddings=4000)
batch = [[1, 2, 3 + i] for i in range(8)]
for options in ({"repetition_penalty": 1.2}, {"logprobs": True, "prompt_logprobs": True}):
    give_device(1 << 28)
    expected = model.generate(batch, max_new_tokens=3, **options)
    model.forward([5] * 3000, logits_to_keep=200)  # 16 MB of logits, which then lie idle
    give_device(model.nbytes + 20_800_000)
    found = model.generate(batch, max_new_tokens=3, **options)
    assert str(found) == str(expected)
""")


@needs_limit
def test_captures_do_not_stand_in_the_way_of_memory() -> None:
    """What fits by giving idle memory back fits with a capture, too, which is given one pass's values."""
    run_limited("""
from infinilm import HookRegistry
def smallest(name):
    for nbytes in range(600_000, 6_000_000, 100_000):
        give_device(1 << 30)
        model = loaded()
        registry = HookRegistry()
        model.set_hook_registry(registry)
        capture = registry.capture(name) if name else []
        for batch in range(1, 9):
            for _ in range(5):
                model.forward([[1]] * batch)
        if name:
            capture.take()
        give_device(nbytes)
        try:
            model.forward([1] * 60)
        except RuntimeError:
            assert len(capture) <= 1  # what it came to
            continue
        assert len(capture) == bool(name)
        return nbytes
assert smallest("layer0_mlp") - smallest("") <= 100_000, (smallest("layer0_mlp"), smallest(""))
""")


@needs_limit
def test_one_captured_value_keeps_no_other() -> None:
    run_limited("""
from infinilm import HookRegistry
model = loaded(vocab_size=4000, max_position_embeddings=1000)
registry = HookRegistry()
model.set_hook_registry(registry)
cache = model.new_cache()
small, large = registry.capture("layer0_output"), registry.capture("logits")
for i in range(20):
    model.forward([i], cache)
give_device(model.nbytes + 1_500_000)
for i in range(300):  # of 16 kB each
    model.forward([i], cache)
    large.take()
assert len(small) == 320
""")
