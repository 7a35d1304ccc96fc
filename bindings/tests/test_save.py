"""Models that are saved and loaded again: the same bits, or an error that leaves what was there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
import safetensors
from infinilm import LlamaForCausalLM, engine
from infinilm.cli import main
from quantized_formats import Format, make_checkpoint, with_quantization
from tiny import VOCAB, random_state, tiny_config

IDS = [int(i) for i in np.random.default_rng(5).integers(0, VOCAB, size=24)]
SAMPLE = infinilm.sample_model()
IMPORTED = [
    Format("pack-quantized", 4, 32, zeros=True),
    Format("pack-quantized", 4, 64, zeros=True, ordered=True),
    Format("pack-quantized", 4, -1),
    Format("pack-quantized", 8, 32, ordered=True),
    Format("int-quantized", 8, -1, zeros=True),
    Format("int-quantized", 8, 32),
    Format("gptq", 4, 32, ordered=True),
    Format("gptq", 8, 64, zeros=True),
    Format("awq", 4, 64, zeros=True),
]


def name_of(f: Format) -> str:
    marks = [mark for mark, on in (("zeros", f.zeros), ("ordered", f.ordered)) if on]
    return "-".join([f.layout, f"int{f.bits}", str(f.group), *marks])


def load(folder: Path | str, **options: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def assert_same(found: LlamaForCausalLM, expected: LlamaForCausalLM, ids: list[int] = IDS) -> None:
    """Many rows and single ones, which are multiplied in other ways."""
    np.testing.assert_array_equal(found(ids).numpy(), expected(ids).numpy())
    np.testing.assert_array_equal(found(ids[:1]).numpy(), expected(ids[:1]).numpy())
    for name, values in expected.state_dict().items():
        np.testing.assert_array_equal(found.get_parameter(name).numpy(), values.numpy(), name)
    assert found.quantization == expected.quantization


def assert_saves(model: LlamaForCausalLM, folder: Path, **options: Any) -> LlamaForCausalLM:
    """Saves it twice: the second, of what was loaded, has the same bytes."""
    model.save_pretrained(folder / "first")
    again = load(folder / "first", **options)
    assert_same(again, model)
    again.save_pretrained(folder / "second")
    first, second = contents(folder / "first"), contents(folder / "second")
    assert first.keys() == second.keys()
    assert first == second
    return again


def stored(folder: Path) -> dict[str, tuple[str, list[int]]]:
    with safetensors.safe_open(folder / "model.safetensors", framework="np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()}


# Round trips


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_plain_models(tmp_path: Path, dtype: str, tied: bool) -> None:
    config = tiny_config(tie_word_embeddings=tied, dtype="float32")
    model = LlamaForCausalLM(config)
    torch_like = {"bfloat16": "bfloat16", "float16": np.float16, "float32": np.float32}[dtype]
    if dtype == "bfloat16":
        import ml_dtypes

        torch_like = ml_dtypes.bfloat16
    state = {n: v.astype(torch_like) for n, v in random_state(config).items()}
    model.load_state_dict(state)
    assert_saves(model, tmp_path)
    code = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    held = stored(tmp_path / "first")
    assert held == {name: (code, list(v.shape)) for name, v in state.items()}
    assert ("lm_head.weight" in held) is not tied
    if dtype != "bfloat16":  # of which the package's NumPy side knows nothing
        from safetensors.numpy import load_file

        for name, values in load_file(tmp_path / "first" / "model.safetensors").items():
            np.testing.assert_array_equal(values, state[name], name)


def test_bfloat16_arithmetic(tmp_path: Path) -> None:
    model = load(SAMPLE, dtype="bfloat16")
    again = assert_saves(model, tmp_path)
    assert str(again.config.dtype) == "bfloat16"
    assert json.loads((tmp_path / "first" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "int8"},
        {"quantization": "int8", "group_size": 32},
        {"quantization": "int4"},
        {"quantization": "int4", "group_size": 64},
        {"quantization": "int4", "group_size": 4096},
    ],
)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_rounded_models(tmp_path: Path, options: dict[str, Any], tied: bool, compute: str) -> None:
    config = tiny_config(
        hidden_size=128, intermediate_size=160, tie_word_embeddings=tied, dtype=compute
    )
    model = LlamaForCausalLM(config, **options)
    model.load_state_dict(random_state(config))
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    np.testing.assert_array_equal(again(IDS).numpy(), model(IDS).numpy())
    np.testing.assert_array_equal(again(IDS[:1]).numpy(), model(IDS[:1]).numpy())
    assert again.nbytes == model.nbytes
    held = stored(tmp_path)
    assert held["model.embed_tokens.weight_packed"] == ("I32", [VOCAB, 32])
    assert ("lm_head.weight_packed" in held) is not tied
    down = "model.layers.1.mlp.down_proj"
    assert held[f"{down}.weight_packed"] == ("I32", [128, 160 * model.quantization.bits // 32])
    assert held[f"{down}.weight_scale"][0] == "F16"
    assert held[f"{down}.weight_shape"] == ("I64", [2])


def test_what_the_config_says(tmp_path: Path) -> None:
    """Names go before the class: embedding and head beside the layers."""
    load(SAMPLE, quantization="int4", activations="int8").save_pretrained(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert found["format"] == "pack-quantized"
    groups = sorted(found["config_groups"].values(), key=lambda g: g["weights"]["num_bits"])
    assert [g["weights"]["num_bits"] for g in groups] == [4, 8]
    assert [g["weights"]["strategy"] for g in groups] == ["group", "channel"]
    assert groups[0]["targets"] == ["Linear"]
    assert "model.embed_tokens" in groups[1]["targets"]
    assert all(g["input_activations"] is None for g in groups)  # a matter of loading
    assert str(load(tmp_path).quantization) == "int4 in groups of 32"


@pytest.mark.parametrize("f", IMPORTED, ids=name_of)
def test_imported_models(tmp_path: Path, f: Format) -> None:
    config = tiny_config(hidden_size=128, intermediate_size=160, attention_bias=True,
                         attention_output_bias=True)  # fmt: skip
    model = load(make_checkpoint(tmp_path / "source", config, f).save())
    again = assert_saves(model, tmp_path)
    assert (again.quantization.bits, again.quantization.group_size) == (f.bits, max(f.group, 0))
    held = stored(tmp_path / "first")
    up = "model.layers.0.mlp.up_proj"
    assert (f"{up}.weight_zero_point" in held) == f.zeros
    assert (f"{up}.weight_g_idx" in held) == f.ordered
    assert held["lm_head.weight"][0] == "F32"


def test_an_imported_model_with_the_rest_rounded(tmp_path: Path) -> None:
    config = tiny_config(hidden_size=128, intermediate_size=160)
    f = Format("gptq", 4, 32, ordered=True)
    source = make_checkpoint(tmp_path / "source", config, f).save()
    assert_saves(load(source, quantization="int8"), tmp_path)


def test_quantised_models_say_what_they_are(tmp_path: Path) -> None:
    config = tiny_config(hidden_size=128, intermediate_size=256)
    for f, text in (
        (Format("gptq", 4, 64), "int4 in groups of 64"),
        (Format("int-quantized", 8, -1), "int8 by rows"),
    ):
        c = make_checkpoint(tmp_path / f.layout, config, f)
        model = load(c.save())
        assert str(model.quantization) == text
        assert repr(text) in repr(model)
        plain = LlamaForCausalLM(model.config)  # ordinary weights under the same config
        assert not plain.quantization
        plain.load_state_dict(c.values)
        assert not plain.quantization
        plain.save_pretrained(tmp_path / "plain")
        assert "quantization_config" not in (tmp_path / "plain" / "config.json").read_text()
        assert_same(load(tmp_path / "plain"), plain)


# Activations


def test_activations_of_a_quantised_checkpoint(tmp_path: Path) -> None:
    rounded = load(SAMPLE, quantization="int4", activations="int8")
    rounded.save_pretrained(tmp_path)
    ids = list(range(1, 30))
    assert_same(load(tmp_path, activations="int8"), rounded, ids)
    exact = load(SAMPLE, quantization="int4")
    assert_same(load(tmp_path), exact, ids)
    assert np.any(exact(ids).numpy() != rounded(ids).numpy())


# Several groups of a config


def mixed_config(folder: Path) -> Path:
    """int4 in the layers, int8 in embedding and head, as it is saved."""
    config = tiny_config(hidden_size=128, intermediate_size=256)
    model = LlamaForCausalLM(config, quantization="int4")
    model.load_state_dict(random_state(config))
    model.save_pretrained(folder)
    return folder


def rewrite(folder: Path, quantization: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "quantization_config": quantization})
    )


def test_names_go_before_classes(tmp_path: Path) -> None:
    folder = mixed_config(tmp_path)
    expected = load(folder)(IDS).numpy()
    found = json.loads((folder / "config.json").read_text())["quantization_config"]
    groups = found["config_groups"]
    four, eight = sorted(groups.values(), key=lambda g: g["weights"]["num_bits"])
    eight["targets"] = ["re:.*embed_tokens$", "lm_head"]
    for order in ({"a": four, "b": eight}, {"a": eight, "b": four}):
        rewrite(folder, {**found, "config_groups": order})
        np.testing.assert_array_equal(load(folder)(IDS).numpy(), expected)
    eight["targets"] = ["Embedding", "lm_head"]
    rewrite(folder, {**found, "config_groups": {"a": four, "b": eight}})
    np.testing.assert_array_equal(load(folder)(IDS).numpy(), expected)
    eight["targets"] = ["Embedding"]  # the head is a linear layer then
    rewrite(folder, {**found, "config_groups": {"a": four, "b": eight}})
    with pytest.raises(ValueError, match=r"lm_head\.weight_packed.*expected shape"):
        load(folder)


def test_stacks_of_different_formats(tmp_path: Path) -> None:
    config = tiny_config(hidden_size=128, intermediate_size=256)
    four = make_checkpoint(tmp_path / "four", config, Format("pack-quantized", 4, 32))
    eight = make_checkpoint(tmp_path / "eight", config, Format("pack-quantized", 8, 32))
    groups = [json.loads(c.config.to_json())["quantization_config"] for c in (four, eight)]
    first, second = (g["config_groups"]["group_0"] for g in groups)
    for targets, works in ((["re:.*down_proj"], True), (["re:.*k_proj"], False)):
        chosen = {"a": first, "b": {**second, "targets": targets}}
        suffix = f".{targets[0].removeprefix('re:.*')}."
        tensors = {
            **{n: v for n, v in four.tensors.items() if suffix not in n},
            **{n: v for n, v in eight.tensors.items() if suffix in n},
        }
        four.config = with_quantization(config, {**groups[0], "config_groups": chosen})
        model = LlamaForCausalLM(four.config)
        if works:
            model.load_state_dict(tensors)
            assert not model.quantization  # they are not all alike
            assert_saves(model, tmp_path)
            continue
        with pytest.raises(ValueError, match=r"k_proj.*shares its input"):
            model.load_state_dict(tensors)


# What goes with the weights


def test_text_works_at_once(tmp_path: Path) -> None:
    llm = infinilm.load(SAMPLE, quantization="int8")
    heard: list[tuple[int, int]] = []
    llm.save_pretrained(tmp_path / "new" / "folder", progress=lambda d, t: heard.append((d, t)))
    assert heard[-1][0] == heard[-1][1] > 0
    assert heard == sorted(heard)
    again = infinilm.load(tmp_path / "new" / "folder")
    expected = llm.generate("ROMEO:", max_new_tokens=12, temperature=0)
    assert again.generate("ROMEO:", max_new_tokens=12, temperature=0) == expected
    names = {p.name for p in Path(SAMPLE).iterdir()} - {"README.md"}
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == names
    assert str(again.model.generation_config) == str(llm.model.generation_config)


def test_into_the_directory_it_came_from(tmp_path: Path) -> None:
    load(SAMPLE).save_pretrained(tmp_path)
    model = load(tmp_path, quantization="int4")
    model.save_pretrained(tmp_path)
    assert_same(load(tmp_path), model)


def test_a_model_without_a_directory(tmp_path: Path) -> None:
    config = tiny_config()
    model = LlamaForCausalLM(config)
    with pytest.raises(RuntimeError, match="no weights yet"):
        model.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    model.load_state_dict(random_state(config))
    model.save_pretrained(tmp_path / "a")
    assert sorted(contents(tmp_path / "a")) == ["config.json", "model.safetensors"]
    inner = model._engine
    assert isinstance(inner, engine.LlamaForCausalLM)
    inner.save_pretrained(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# Errors


def test_a_file_in_the_way(tmp_path: Path) -> None:
    model = load(SAMPLE)
    (tmp_path / "file").write_text("mine")
    for where in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            model.save_pretrained(where)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=name):
        load(SAMPLE).save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(OSError, match=f"Permission denied.*{folder}"):
        load(SAMPLE).save_pretrained(folder)
    assert contents(folder) == {}


def test_a_callback_that_raises(tmp_path: Path) -> None:
    load(SAMPLE).save_pretrained(tmp_path)
    before = contents(tmp_path)

    def enough(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        load(SAMPLE, quantization="int4").save_pretrained(tmp_path, progress=enough)
    assert contents(tmp_path) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of the weights."""
    load(SAMPLE, quantization="int4").save_pretrained(tmp_path)
    before = contents(tmp_path)
    limit = 3 * len(before["model.safetensors"]) // 2
    script = f"""
import resource, signal, infinilm
model = infinilm.LlamaForCausalLM.from_pretrained({SAMPLE!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    model.save_pretrained({str(tmp_path)!r})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "model.safetensors") in done.stdout
    assert contents(tmp_path) == before


def test_what_the_config_cannot_say(tmp_path: Path) -> None:
    config = tiny_config(bos_token_id=[1, 2])
    model = LlamaForCausalLM(config)
    model.load_state_dict(random_state(config))
    with pytest.raises(ValueError, match="bos_token_id"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    config = tiny_config()
    state = random_state(config)
    state["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    model = LlamaForCausalLM(config, quantization="int4")
    model.load_state_dict(state)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.down_proj.*finite"):
        model.save_pretrained(tmp_path)
    assert contents(tmp_path) == {}


# The command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["quantize", SAMPLE, str(out)]
    assert main([*arguments, "--group-size", "64"]) == 0
    assert "int4 in groups of 64" in capsys.readouterr().out
    assert_same(load(out), load(SAMPLE, quantization="int4", group_size=64), list(range(1, 9)))
    before = contents(out)
    assert main([*arguments, "--quantization", "int8"]) == 1
    assert "--force" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*arguments, "--quantization", "int8", "--force"]) == 0
    assert load(out).quantization.bits == 8
    assert main(["generate", "-m", str(out), "ROMEO:", "--max-new-tokens", "3"]) == 0
    assert main(["inspect", str(out)]) == 0
    assert "compressed-tensors" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["quantize", SAMPLE, str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err
