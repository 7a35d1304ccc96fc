"""Checkpoints that are quantised already: exact weights in every format, and what is refused by name."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import infinilm.cli
import numpy as np
import pytest
from infinilm import LlamaConfig, LlamaForCausalLM
from quantized_formats import (
    Array,
    Checkpoint,
    Format,
    config_of,
    make_checkpoint,
    with_quantization,
)
from tiny import VOCAB, tiny_config

IDS = [int(i) for i in np.random.default_rng(3).integers(0, VOCAB, size=24)]
DOWN = "model.layers.1.mlp.down_proj"
Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"

FORMATS = [
    Format("pack-quantized", 4, 32),
    Format("pack-quantized", 4, 128, zeros=True),
    Format("pack-quantized", 4, -1),
    Format("pack-quantized", 4, -1, zeros=True),
    Format("pack-quantized", 4, 64, scales="bfloat16"),
    Format("pack-quantized", 4, 32, zeros=True, ordered=True),
    Format("pack-quantized", 8, 32, zeros=True),
    Format("pack-quantized", 8, -1),
    Format("pack-quantized", 8, 128, ordered=True),
    Format("int-quantized", 8, -1),
    Format("int-quantized", 8, -1, zeros=True),
    Format("int-quantized", 8, 32, scales="float32"),
    Format("gptq", 4, 32),
    Format("gptq", 4, 128),
    Format("gptq", 4, 32, zeros=True),
    Format("gptq", 4, 32, ordered=True),
    Format("gptq", 4, 128, zeros=True, ordered=True),
    Format("gptq", 4, -1),
    Format("gptq", 8, 64, zeros=True),
    Format("gptq", 8, -1),
    Format("gptq", 4, 32, scales="bfloat16"),
    Format("gptq_v2", 4, 32),
    Format("gptq_v2", 4, 32, zeros=True, ordered=True),
    Format("awq", 4, 32, zeros=True),
    Format("awq", 4, 128, zeros=True),
    Format("awq", 4, -1, zeros=True),
    Format("awq", 4, 64, zeros=True, scales="float32"),
]
PACKED_ORDER = Format("pack-quantized", 4, 32, ordered=True)
GPTQ_ORDER = Format("gptq", 4, 32, ordered=True)
REPRESENTATIVES = [
    Format("pack-quantized", 4, 32, zeros=True),
    Format("int-quantized", 8, -1, zeros=True),
    Format("gptq", 4, 32, ordered=True),
    Format("awq", 4, 32, zeros=True),
]


def name_of(f: Format) -> str:
    marks = [mark for mark, on in (("zeros", f.zeros), ("ordered", f.ordered)) if on]
    return "-".join([f.layout, f"int{f.bits}", str(f.group), *marks, f.scales])


def model_config(**fields: Any) -> LlamaConfig:
    """Wide enough for groups of 128; 160 is no multiple of 64, nor of 128."""
    return tiny_config(**{"hidden_size": 128, "intermediate_size": 160, **fields})


def checkpoint(folder: Path, f: Format, **fields: Any) -> Checkpoint:
    return make_checkpoint(folder, model_config(**fields), f)


def ordinary_model(c: Checkpoint, **fields: Any) -> LlamaForCausalLM:
    """The same weights, not quantised."""
    model = LlamaForCausalLM(model_config(**fields))
    model.load_state_dict(c.values)
    return model


def load(folder: Path, **options: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, **options)


@pytest.mark.parametrize("f", FORMATS, ids=name_of)
def test_weights_are_exact(tmp_path: Path, f: Format) -> None:
    c = checkpoint(tmp_path, f)
    model = load(c.save())
    for name, values in c.values.items():
        np.testing.assert_array_equal(model.get_parameter(name).numpy(), values, err_msg=name)
    expected = ordinary_model(c)(IDS).numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(model(IDS).numpy(), expected, rtol=0, atol=1e-4)
    cache = model.new_cache()
    steps = [model.forward([i], cache).numpy() for i in IDS[:4]]  # multiplied as single rows
    np.testing.assert_allclose(np.concatenate(steps), expected[:4], rtol=0, atol=1e-4)


@pytest.mark.parametrize("f", REPRESENTATIVES, ids=name_of)
def test_bfloat16_arithmetic(tmp_path: Path, f: Format) -> None:
    c = checkpoint(tmp_path, f)
    model = load(c.save(), dtype="bfloat16")
    expected = ordinary_model(c)(IDS).numpy()
    np.testing.assert_allclose(
        model(IDS).numpy(), expected, rtol=0, atol=0.05 * float(np.abs(expected).max())
    )
    np.testing.assert_array_equal(
        model.get_parameter(f"{Q}.weight").numpy(), c.values[f"{Q}.weight"]
    )


@pytest.mark.parametrize("f", REPRESENTATIVES, ids=name_of)
def test_memory_is_that_of_the_codes(tmp_path: Path, f: Format) -> None:
    c = checkpoint(tmp_path, f, intermediate_size=1024)
    model = load(c.save())
    ordinary = ordinary_model(c, intermediate_size=1024)
    linear = sum(v.size for n, v in c.values.items() if n.endswith("_proj.weight"))
    saved = ordinary.nbytes - model.nbytes
    assert saved > linear * (4 - f.bits / 8) * 0.9  # float32 against bits, scales and zeros


@pytest.mark.parametrize("f", REPRESENTATIVES, ids=name_of)
def test_a_state_dict_loads_as_a_file_does(tmp_path: Path, f: Format) -> None:
    c = checkpoint(tmp_path, f)
    model = LlamaForCausalLM(c.config)
    model.load_state_dict({n: np.asfortranarray(v) for n, v in c.tensors.items()})
    np.testing.assert_array_equal(model(IDS).numpy(), load(c.save())(IDS).numpy())
    again = LlamaForCausalLM(model.config)  # ordinary weights under the same config
    again.load_state_dict(model.state_dict())
    np.testing.assert_allclose(again(IDS).numpy(), model(IDS).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["pack-quantized", "gptq", "awq"])
def test_a_group_beyond_the_row_is_the_row(tmp_path: Path, layout: str) -> None:
    rows = checkpoint(tmp_path / "rows", Format(layout, 4, -1, zeros=True))
    wide = checkpoint(tmp_path / "wide", Format(layout, 4, 2**30, zeros=True))
    model = load(wide.save())
    assert model.nbytes == load(rows.save()).nbytes
    for name, values in wide.values.items():
        np.testing.assert_array_equal(model.get_parameter(name).numpy(), values)


@pytest.mark.parametrize("f", [PACKED_ORDER, GPTQ_ORDER, replace(GPTQ_ORDER, group=128)])
def test_int8_activations_of_inputs_in_another_order(tmp_path: Path, f: Format) -> None:
    c = checkpoint(tmp_path, f)
    model = load(c.save(), quantization="int8", activations="int8")
    expected = ordinary_model(c)(IDS).numpy()
    largest = float(np.abs(expected).max())
    # Rounding to 8 bits costs a few percent (0.04 and 0.06 here); another order would cost everything.
    np.testing.assert_allclose(model(IDS).numpy(), expected, rtol=0, atol=0.15 * largest)
    assert np.abs(model(IDS).numpy() - expected).max() > 1e-4  # they are rounded


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    for f in REPRESENTATIVES:
        c = checkpoint(tmp_path / name_of(f), f)
        heard: list[tuple[int, int]] = []
        load(c.save(), progress=lambda done, total, to=heard: to.append((done, total)))
        assert heard[-1][0] == heard[-1][1] == sum(v.nbytes for v in c.tensors.values())
        assert all(a[0] <= b[0] for a, b in itertools.pairwise(heard))


def test_the_rest_can_be_rounded(tmp_path: Path) -> None:
    """``quantization`` is for what the file has not quantised: embedding and head."""
    f = Format("gptq", 4, 32)
    c = checkpoint(tmp_path, f)
    kept, rounded = load(c.save()), load(c.save(), quantization="int8")
    assert rounded.nbytes < kept.nbytes
    name = f"{DOWN}.weight"
    np.testing.assert_array_equal(rounded.get_parameter(name).numpy(), c.values[name])
    head = "lm_head.weight"
    assert np.any(rounded.get_parameter(head).numpy() != c.values[head])
    np.testing.assert_allclose(rounded(IDS).numpy(), kept(IDS).numpy(), rtol=0, atol=0.2)


def test_biases_and_tied_heads(tmp_path: Path) -> None:
    fields = {
        "attention_bias": True,
        "attention_output_bias": True,
        "tie_word_embeddings": True,
    }
    for f in REPRESENTATIVES:
        c = checkpoint(tmp_path / name_of(f), f, **fields)
        np.testing.assert_allclose(
            load(c.save())(IDS).numpy(), ordinary_model(c, **fields)(IDS).numpy(), rtol=0, atol=1e-4
        )


def test_rows_that_fill_no_tile(tmp_path: Path) -> None:
    """Outputs that are no multiple of a panel, a word of codes or a tile."""
    fields = {"intermediate_size": 104, "num_attention_heads": 2, "num_key_value_heads": 1}
    for f in REPRESENTATIVES:
        c = checkpoint(tmp_path / name_of(f), f, **fields)
        np.testing.assert_allclose(
            load(c.save())(IDS).numpy(), ordinary_model(c, **fields)(IDS).numpy(), rtol=0, atol=1e-4
        )


def test_scales_are_rounded_to_float16(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, Format("gptq", 4, 32, scales="float32"))
    scales = c.tensors[f"{DOWN}.scales"]
    scales *= 1 + np.random.default_rng(5).uniform(-0.01, 0.01, scales.shape).astype(np.float32)
    found = load(c.save()).get_parameter(f"{DOWN}.weight").numpy()
    groups = np.arange(160) // 32
    kept = scales.T.astype(np.float16).astype(np.float32)
    assert np.any(kept != scales.T)
    old = c.values[f"{DOWN}.weight"] / np.repeat(
        checkpoint(tmp_path, Format("gptq", 4, 32, scales="float32")).tensors[f"{DOWN}.scales"].T,
        32,
        axis=1,
    )
    np.testing.assert_array_equal(found, np.rint(old) * kept[:, groups])


@pytest.mark.parametrize("f", REPRESENTATIVES, ids=name_of)
def test_inspect(tmp_path: Path, f: Format, capsys: pytest.CaptureFixture[str]) -> None:
    c = checkpoint(tmp_path, f)
    assert infinilm.cli.main(["inspect", str(c.save()), "--no-points"]) == 0
    text = capsys.readouterr().out
    assert f"quantised ({config_of(f)['quant_method']})" in text
    assert "missing" not in text
    held = sum(v.nbytes for n, v in c.tensors.items() if "g_idx" not in n and "shape" not in n)
    assert f"{held / 1024:.1f} KiB" in text


# Which modules


def without(c: Checkpoint, module: str) -> None:
    """An ordinary matrix in the place of a quantised one."""
    for name in [n for n in c.tensors if n.startswith(module + ".")]:
        del c.tensors[name]
    c.tensors[f"{module}.weight"] = c.values[f"{module}.weight"]


@pytest.mark.parametrize(
    ("f", "key", "names"),
    [
        (Format("pack-quantized"), "ignore", ["lm_head", DOWN]),
        (Format("pack-quantized"), "ignore", ["lm_head", r"re:.*layers\.1\..*down"]),
        (Format("int-quantized", 8, -1), "ignore", ["lm_head", DOWN]),
        (Format("awq", zeros=True), "modules_to_not_convert", ["layers.1.mlp.down_proj"]),
        (Format("gptq"), "modules_to_not_convert", [DOWN]),
        (
            Format("gptq"),
            "modules_in_block_to_quantize",
            [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]],
        ),
    ],
)
def test_modules_that_stay(tmp_path: Path, f: Format, key: str, names: list[Any]) -> None:
    c = checkpoint(tmp_path, f)
    without(c, DOWN)
    if key == "modules_in_block_to_quantize":
        for layer in (0, 1):
            for name in ("gate_proj", "up_proj", "down_proj"):
                without(c, f"model.layers.{layer}.mlp.{name}")
    c.config = with_quantization(model_config(), {**config_of(f), key: names})
    model = load(c.save())
    for name, values in c.values.items():
        np.testing.assert_array_equal(model.get_parameter(name).numpy(), values)
    np.testing.assert_allclose(model(IDS).numpy(), ordinary_model(c)(IDS).numpy(), atol=1e-4)


def test_a_hostile_expression_ends(tmp_path: Path) -> None:
    """Going back and forth over a name, it would take longer than anybody lives."""
    c = checkpoint(tmp_path, Format("pack-quantized"))
    names = ["lm_head", "re:" + "(.*)*" * 12 + "!", "re:((([a-z.]*)*)*)*!"]
    c.config = with_quantization(model_config(), {**PACKED, "ignore": names})
    load(c.save())


def test_a_quantised_head(tmp_path: Path) -> None:
    f = Format("gptq", 4, 32)
    c = checkpoint(tmp_path, f, vocab_size=64)
    other = make_checkpoint(tmp_path, model_config(intermediate_size=64), f, seed=1)
    for part in ("qweight", "qzeros", "scales", "g_idx"):  # a matrix of as many rows
        c.tensors[f"lm_head.{part}"] = other.tensors[f"model.layers.0.mlp.gate_proj.{part}"]
    del c.tensors["lm_head.weight"]
    c.values["lm_head.weight"] = other.values["model.layers.0.mlp.gate_proj.weight"]
    c.config = with_quantization(model_config(vocab_size=64), {**config_of(f), "lm_head": True})
    model = load(c.save())
    np.testing.assert_array_equal(
        model.get_parameter("lm_head.weight").numpy(), c.values["lm_head.weight"]
    )
    np.testing.assert_allclose(
        model(IDS).numpy(), ordinary_model(c, vocab_size=64)(IDS).numpy(), atol=1e-4
    )


def test_part_of_a_stack_is_refused(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, Format("gptq"))
    without(c, K)
    with pytest.raises(ValueError, match=r"safetensors.*q_proj.*k_proj.*both quantised or neither"):
        load(c.save())


# The config


def test_the_config_survives(tmp_path: Path) -> None:
    for f in REPRESENTATIVES:
        config = with_quantization(model_config(), {**config_of(f), "unknown": [1, {"a": None}]})
        assert config != model_config()
        again = [
            LlamaConfig.from_json(config.to_json()),
            copy.deepcopy(config),
            pickle.loads(pickle.dumps(config)),
        ]
        config.save_pretrained(str(tmp_path))
        again.append(LlamaConfig.from_pretrained(str(tmp_path)))
        assert again == [config] * 4
        document = json.loads((tmp_path / "config.json").read_text())
        assert document["quantization_config"]["unknown"] == [1, {"a": None}]


GPTQ = config_of(Format("gptq"))
AWQ = config_of(Format("awq", zeros=True))
PACKED = config_of(Format("pack-quantized"))
INT8 = config_of(Format("int-quantized", 8, -1))


def weights(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return group(config, weights={**config["config_groups"]["group_0"]["weights"], **fields})


def group(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        **config,
        "config_groups": {"group_0": {**config["config_groups"]["group_0"], **fields}},
    }


def two_groups(**fields: Any) -> dict[str, Any]:
    first = {**PACKED["config_groups"]["group_0"], "targets": [f"re:.*{n}_proj" for n in "qkvo"]}
    second = {**first, "targets": ["re:.*mlp.*"], "weights": {**first["weights"], **fields}}
    return {**PACKED, "config_groups": {"group_0": first, "group_1": second}}


REFUSED: list[tuple[Any, list[str]]] = [
    ([], ["quantization_config", "an object"]),
    ({"bits": 4}, ["quant_method", "compressed-tensors", "null"]),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ["quant_method", "bitsandbytes"]),
    ({"quant_method": "fp8"}, ["quant_method", "fp8"]),
    ({"quant_method": "hqq"}, ["quant_method", "hqq"]),
    ({"quant_method": "exl2"}, ["quant_method", "exl2"]),
    ({"quant_method": 3}, ["quant_method", "3"]),
    ({**GPTQ, "bits": 3}, ["quantization_config.bits", "4 or 8", "3"]),
    ({**GPTQ, "bits": 2}, ["quantization_config.bits", "2"]),
    ({**GPTQ, "bits": "4"}, ["quantization_config.bits", "string"]),
    ({**GPTQ, "group_size": 16}, ["group_size", "multiple of 32", "16"]),
    ({**GPTQ, "group_size": 0}, ["group_size", "0"]),
    ({**GPTQ, "group_size": -32}, ["group_size", "-32"]),
    ({**GPTQ, "group_size": None}, ["group_size", "null"]),
    ({**GPTQ, "group_size": 2**62}, ["group_size"]),
    ({**GPTQ, "is_marlin_format": True}, ["is_marlin_format", "true"]),
    ({**GPTQ, "checkpoint_format": "marlin"}, ["checkpoint_format", "gptq_v2", "marlin"]),
    ({**GPTQ, "desc_act": 1}, ["desc_act", "1"]),
    ({**GPTQ, "sym": "yes"}, ["sym", "yes"]),
    ({**GPTQ, "dynamic": {"-:.*down.*": {}}}, ["dynamic", "down"]),
    ({**GPTQ, "pack_dtype": "int16"}, ["pack_dtype", "int16"]),
    ({**GPTQ, "modules_in_block_to_quantize": "q_proj"}, ["modules_in_block", "q_proj"]),
    ({**AWQ, "bits": 8}, ["quantization_config.bits", "8"]),
    ({**AWQ, "version": "gemv"}, ["version", "gemm", "gemv"]),
    ({**AWQ, "zero_point": False}, ["zero_point", "false"]),
    ({**AWQ, "backend": "llm-awq"}, ["backend", "llm-awq"]),
    ({**AWQ, "modules_to_not_convert": [1]}, ["modules_to_not_convert", "1"]),
    ({**PACKED, "format": "marlin-24"}, ["format", "marlin-24"]),
    ({**PACKED, "format": "float-quantized"}, ["format", "float-quantized"]),
    ({**PACKED, "format": None}, ["format", "null"]),
    ({**PACKED, "quantization_status": "frozen"}, ["quantization_status", "frozen"]),
    ({**PACKED, "kv_cache_scheme": {"num_bits": 8}}, ["kv_cache_scheme", "num_bits"]),
    ({**PACKED, "transform_config": {"R1": 1}}, ["transform_config", "R1"]),
    ({**PACKED, "sparsity_config": {"format": "sparse-24-bitmask"}}, ["sparsity_config.format"]),
    ({**PACKED, "config_groups": {}}, ["config_groups"]),
    ({**PACKED, "config_groups": {"W4A16": ["Linear"]}}, ["config_groups.W4A16", "an object"]),
    (weights(PACKED, num_bits=2), ["group_0.weights.num_bits", "2"]),
    (weights(PACKED, type="float"), ["group_0.weights.type", "float"]),
    (weights(PACKED, strategy="block"), ["group_0.weights.strategy", "block"]),
    (weights(PACKED, strategy="tensor"), ["group_0.weights.strategy", "tensor"]),
    (weights(PACKED, dynamic=True), ["group_0.weights.dynamic", "true"]),
    (weights(PACKED, actorder="other"), ["group_0.weights.actorder", "other"]),
    (weights(PACKED, group_size=48), ["group_0.weights.group_size", "48"]),
    (weights(INT8, num_bits=4), ["group_0.weights.num_bits", "int-quantized"]),
    (group(PACKED, weights=None), ["group_0.weights", "null"]),
    (group(PACKED, targets=[]), ["group_0.targets"]),
    (group(PACKED, targets=["Embedding"]), ["group_0.targets", "Embedding"]),
    (group(PACKED, targets=["re:(("]), ["group_0.targets", "regular expression"]),
    (group(PACKED, output_activations={"num_bits": 8}), ["group_0.output_activations"]),
    (
        group(INT8, input_activations={"num_bits": 8, "dynamic": False}),
        ["group_0.input_activations.dynamic", "false"],
    ),
    (group(PACKED, format="int-quantized"), ["group_0.format"]),
    (two_groups(num_bits=8), ["group_1.weights", "the same"]),
    (two_groups(symmetric=False), ["group_1.weights", "the same"]),
]


@pytest.mark.parametrize(("quantization", "named"), REFUSED, ids=lambda v: str(v)[:40])
def test_unsupported_schemes_are_refused(quantization: Any, named: list[str]) -> None:
    with pytest.raises(ValueError, match="quantization_config") as error:
        with_quantization(model_config(), quantization)
    for text in named:
        assert text in str(error.value)


def test_the_way_out_is_named() -> None:
    with pytest.raises(ValueError, match="rounded to int4 or int8 while it is loaded"):
        with_quantization(model_config(), {"quant_method": "aqlm"})


@pytest.mark.parametrize(
    "quantization",
    [
        {**INT8, "format": "naive-quantized"},
        group(INT8, input_activations={"num_bits": 8, "dynamic": True, "strategy": "token"}),
    ],
)
def test_other_forms_of_int8(tmp_path: Path, quantization: dict[str, Any]) -> None:
    """Activations that would be rounded as they come count exactly here."""
    c = checkpoint(tmp_path, Format("int-quantized", 8, -1))
    c.config = with_quantization(model_config(), quantization)
    np.testing.assert_allclose(
        load(c.save())(IDS).numpy(), ordinary_model(c)(IDS).numpy(), atol=1e-4
    )


def test_several_groups_that_are_alike(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, Format("pack-quantized"))
    c.config = with_quantization(model_config(), two_groups())
    np.testing.assert_allclose(
        load(c.save())(IDS).numpy(), ordinary_model(c)(IDS).numpy(), atol=1e-4
    )


# Tensors that do not fit

Change = Callable[[Array], Array]
SHORT: Change = lambda a: a[:-1].copy()  # noqa: E731
FLOAT: Change = lambda a: a.astype(np.float32)  # noqa: E731
WIDE: Change = lambda a: a.astype(np.float64)  # noqa: E731

PACKED_ZEROS = Format("pack-quantized", 4, 32, zeros=True)
INT_ZEROS = Format("int-quantized", 8, -1, zeros=True)
AWQ_USUAL = Format("awq", 4, 32, zeros=True)
PARTS = [
    (PACKED_ZEROS, ["weight_packed", "weight_scale", "weight_zero_point", "weight_shape"]),
    (PACKED_ORDER, ["weight_g_idx"]),
    (INT_ZEROS, ["weight", "weight_scale", "weight_zero_point"]),
    (GPTQ_ORDER, ["qweight", "qzeros", "scales", "g_idx"]),
    (AWQ_USUAL, ["qweight", "qzeros", "scales"]),
]
EVERY_PART = [(f, part) for f, parts in PARTS for part in parts]


def refused(c: Checkpoint) -> str:
    with pytest.raises(ValueError, match=r"model\.safetensors") as error:
        load(c.save())
    with pytest.raises(ValueError, match="the state dict"):
        LlamaForCausalLM(c.config).load_state_dict(c.tensors)
    return str(error.value)


@pytest.mark.parametrize(("f", "part"), EVERY_PART)
def test_missing_tensors(tmp_path: Path, f: Format, part: str) -> None:
    c = checkpoint(tmp_path, f)
    name = f"{DOWN}.{part}"
    shape = str(c.tensors.pop(name).shape)
    if part == "weight_shape":  # it says nothing that is not known
        load(c.save())
        return
    text = refused(c)
    assert f'missing "{name}"' in text
    assert shape in text


@pytest.mark.parametrize(("f", "part"), EVERY_PART)
def test_wrong_shapes(tmp_path: Path, f: Format, part: str) -> None:
    c = checkpoint(tmp_path, f)
    name = f"{DOWN}.{part}"
    old = c.tensors[name]
    c.tensors[name] = SHORT(old)
    text = refused(c)
    assert name in text
    assert f"expected shape {old.shape}, found {c.tensors[name].shape}" in text


@pytest.mark.parametrize(("f", "part"), EVERY_PART)
def test_wrong_dtypes(tmp_path: Path, f: Format, part: str) -> None:
    c = checkpoint(tmp_path, f)
    name = f"{DOWN}.{part}"
    floats = c.tensors[name].dtype.kind == "f"
    c.tensors[name] = (WIDE if floats or part == "weight" else FLOAT)(c.tensors[name])
    text = refused(c)
    assert name in text
    assert "expected dtype" in text
    assert f"found {c.tensors[name].dtype}" in text


@pytest.mark.parametrize("f", [GPTQ_ORDER, PACKED_ORDER, Format("gptq", 4, 32)], ids=name_of)
@pytest.mark.parametrize(
    ("place", "value", "named"),
    [(3, 5, "found 5 in place 3"), (7, -1, "found -1 in place 7"), (0, None, "columns in group")],
)
def test_bad_groups(tmp_path: Path, f: Format, place: int, value: int | None, named: str) -> None:
    c = checkpoint(tmp_path, f)
    part = "g_idx" if f.layout == "gptq" else "weight_g_idx"
    g_idx = c.tensors[f"{DOWN}.{part}"]
    g_idx[place] = (g_idx[place] + 1) % 5 if value is None else value
    text = refused(c)
    assert f"{DOWN}.{part}" in text
    assert named in text


def test_groups_that_differ_within_a_stack(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, GPTQ_ORDER)
    c.tensors[f"{K}.g_idx"] = c.tensors[f"{K}.g_idx"][::-1].copy()
    text = refused(c)
    assert K in text
    assert "the same g_idx as that of" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
def test_scales_that_no_float16_holds(tmp_path: Path, value: float) -> None:
    for f, part in ((PACKED_ZEROS, "weight_scale"), (GPTQ_ORDER, "scales"), (AWQ_USUAL, "scales")):
        c = checkpoint(tmp_path, replace(f, scales="float32"))
        c.tensors[f"{DOWN}.{part}"][1, 2] = value
        text = refused(c)
        assert f"{DOWN}.{part}" in text
        assert "finite" in text


def test_a_wrong_weight_shape(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, PACKED_ZEROS)
    c.tensors[f"{DOWN}.weight_shape"][1] += 8
    text = refused(c)
    assert f"{DOWN}.weight_shape" in text
    assert "(128, 160)" in text
    assert "168" in text


def test_zeros_beside_symmetry(tmp_path: Path) -> None:
    c = checkpoint(tmp_path, PACKED_ZEROS)
    quantization = config_of(replace(PACKED_ZEROS, zeros=False))
    c.config = with_quantization(model_config(), quantization)
    with pytest.raises(ValueError, match=r"weight_zero_point.*symmetric"):
        load(c.save())


def test_a_wrong_version_of_gptq(tmp_path: Path) -> None:
    """Zeros that are less one are told from those that are not, where both say "sym"."""
    c = checkpoint(tmp_path, Format("gptq", 4, 32))
    c.config = with_quantization(model_config(), config_of(Format("gptq_v2", 4, 32)))
    with pytest.raises(ValueError, match=r"qzeros.*a zero of 8.*found 7.*checkpoint_format"):
        load(c.save())


def test_the_library_writes_unused_groups(tmp_path: Path) -> None:
    """-1 everywhere stands for no g_idx."""
    c = checkpoint(tmp_path, PACKED_ZEROS)
    for name, values in list(c.tensors.items()):
        if name.endswith("weight_packed"):
            inputs = values.shape[1] * 8
            c.tensors[name.replace("weight_packed", "weight_g_idx")] = np.full(inputs, -1, np.int32)
    np.testing.assert_allclose(
        load(c.save())(IDS).numpy(), ordinary_model(c)(IDS).numpy(), atol=1e-4
    )
