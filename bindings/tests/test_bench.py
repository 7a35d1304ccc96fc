"""`infinilm bench` and the engine's ceilings: what is printed and written, not how fast it is."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from devices import NO_CUDA, needs_cuda
from infinilm import engine
from infinilm.benchmark import measure, plot
from infinilm.benchmark.random_model import temporary_checkpoint, to_stored, write_checkpoint
from infinilm.benchmark.shapes import SHAPES, head_parameters, layer_parameters
from infinilm.cli import main

QUICK = ("--prompt-tokens", "9", "--new-tokens", "3", "--rounds", "2")
MIB = 1 << 20


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", *arguments]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


# The ceilings


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_peaks_are_measured(dtype: str) -> None:
    peak = engine.Ceilings(MIB).peak(dtype)
    assert peak.instruction
    assert math.isfinite(peak.gflops)
    assert peak.gflops > 0
    assert "instruction" in repr(peak)


@needs_cuda
def test_limits_of_a_gpu() -> None:
    limits = engine.Ceilings(MIB, "cuda")
    assert limits.read_gbs() > 0
    assert limits.peak("bfloat16").gflops > 0
    with pytest.raises(RuntimeError, match="cuda:9"):
        engine.Ceilings(MIB, "cuda:9")


@pytest.mark.parametrize("level", infinilm.available_cpu_levels())
def test_every_level_has_peaks_and_reads(level: str) -> None:
    code = (
        "from infinilm import engine; c = engine.Ceilings(3 << 20);"
        "assert c.read_gbs() > 0; assert all(c.peak(d).gflops > 0 for d in ('float32', 'bfloat16',"
        "'int8')); print(engine.cpu_level())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "INFINILM_CPU": level},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == level


def test_what_ceilings_refuse() -> None:
    with pytest.raises(ValueError, match="at least 1048576 bytes to read, found 1048575"):
        engine.Ceilings(MIB - 1)
    with pytest.raises(ValueError, match="expected float32, bfloat16 or int8, found float16"):
        engine.Ceilings(MIB).peak("float16")
    with pytest.raises((TypeError, OverflowError, ValueError)):
        engine.Ceilings(-1)


# Random models


def test_a_random_model_is_the_same_each_time_and_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, SHAPES["tiny"], "bfloat16", seed=3)
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("a", "b"))
    assert first == second
    model = infinilm.LlamaForCausalLM.from_pretrained(tmp_path / "a")
    logits = model(np.arange(20)).numpy()
    assert np.isfinite(logits).all()
    assert 1 < logits.std() < 10


def test_a_temporary_checkpoint_is_gone_afterwards() -> None:
    with temporary_checkpoint(SHAPES["tiny"]) as folder:
        assert (folder / "config.json").exists()
    assert not folder.exists()


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[:2] = np.float32([1 + 2**-8, 1 + 3 * 2**-8])  # halfway between two
    expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert (to_stored(values.copy(), "bfloat16") == expected).all()


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted(name: str) -> None:
    config = infinilm.LlamaConfig.from_dict(SHAPES[name].config("bfloat16"))
    matrices = [math.prod(p.shape) for p in infinilm.parameters(config) if len(p.shape) == 2]
    tables = 1 if config.tie_word_embeddings else 2
    assert layer_parameters(config) + tables * head_parameters(config) == sum(matrices)


def test_bytes_of_a_pass_leave_out_an_embedding_that_is_no_head() -> None:
    for tied in (True, False):
        config = infinilm.LlamaConfig.from_dict(SHAPES["tiny"].config("float32"))
        config.tie_word_embeddings = tied
        model = infinilm.LlamaForCausalLM(config)
        model.load_state_dict(
            {p.name: np.ones(p.shape, np.float32) for p in infinilm.parameters(config)}
        )
        table = 0 if tied else 4 * config.vocab_size * config.hidden_size
        assert model._engine.nbytes_per_pass() == model.nbytes - table


# The command


def test_a_directory_and_a_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES["tiny"])
    for where in (["--shape", "tiny"], [str(tmp_path)], []):
        assert main(["bench", *where, *QUICK, "--batch", "1,3"]) == 0
        text = capsys.readouterr().out
        assert "prefill tok/s" in text
        assert "of bandwidth" in text
        assert "nan" not in text
        lines = text.splitlines()
        assert [line.split()[0] for line in lines[-2:]] == ["1", "3"]


@needs_cuda
def test_a_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["bench", "--device", "cuda", *QUICK, "--batch", "1,2", "--json", str(file)]) == 0
    assert infinilm.cuda_devices()[0].name in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["device"] == "cuda:0"
    assert [run["batch"] for run in written["runs"]] == [1, 2]


@pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
def test_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert "CUDA" in failure(capsys, "--shape", "tiny", *QUICK, "--device", "cuda")


def test_the_prompt_is_as_long_as_the_model_has_room_for(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["bench", "--new-tokens", "3", "--rounds", "1", "--json", str(file)]) == 0
    longest = infinilm.LlamaConfig.from_pretrained(infinilm.sample_model()).max_sequence_length()
    assert longest < 512
    assert json.loads(file.read_text(encoding="utf-8"))["runs"][0]["prompt_tokens"] == longest - 4


def test_what_json_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    threads = infinilm.num_threads()
    try:
        arguments = ["--shape", "tiny", "--batch", "2", "--dtype", "float32", "--threads", "1",
                     "--kv-cache-dtype", "int8"]  # fmt: skip
        assert main(["bench", *arguments, *QUICK, "--json", str(file)]) == 0
    finally:
        infinilm.set_num_threads(threads)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["model"] == "tiny"
    assert written["threads"] == 1
    assert written["cpu_level"] == infinilm.cpu_level()
    assert written["options"] == {"dtype": "float32", "kv_cache_dtype": "int8"}
    assert written["version"] == infinilm.__version__
    config = infinilm.LlamaConfig.from_dict(SHAPES["tiny"].config("float32"))
    assert written["layer_parameters"] == layer_parameters(config)
    (run,) = written["runs"]
    assert (run["batch"], run["prompt_tokens"], run["new_tokens"]) == (2, 9, 3)
    assert len(run["samples"]) == 2
    for sample in run["samples"]:
        assert set(sample) == set(measure.Sample.__dataclass_fields__)
        assert all(math.isfinite(value) and value > 0 for value in sample.values())
        assert sample["prefill_of_peak"] == sample["prefill_gflops"] / sample["peak_gflops"]
        assert sample["decode_of_bandwidth"] == sample["decode_gbs"] / sample["read_gbs"]
        passes = sample["decode_tokens_per_second"] / 2
        assert sample["decode_gbs"] == pytest.approx(1e-9 * written["nbytes_per_pass"] * passes)
        gflops = 2e-9 * written["layer_parameters"] * sample["prefill_tokens_per_second"]
        assert sample["prefill_gflops"] == pytest.approx(gflops)


@pytest.mark.parametrize("activations", [None, "int8"])
@pytest.mark.parametrize("bits", [8, 4])
def test_bytes_of_a_pass_of_quantised_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bits: int, activations: str | None
) -> None:
    file = tmp_path / "out.json"
    arguments = ["--shape", "tiny", *QUICK, "--quantization", f"int{bits}", "--json", str(file)]
    arguments += ["--activations", activations] if activations else []
    assert main(["bench", *arguments]) == 0
    assert f"quantization int{bits}" in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    weights = written["layer_parameters"] * bits // 8 + written["head_parameters"]
    assert weights < written["nbytes_per_pass"] < 1.5 * weights  # scales, norms, padding


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --batch" in usage_error(capsys, "--bacth", "3")
    for wrong in ("0", "-1", "x", "1.5", "1,", ""):
        text = usage_error(capsys, f"--batch={wrong}")
        assert "expected a whole number above zero, found" in text, wrong
    assert "each number once" in usage_error(capsys, "--batch", "2,2")
    for option in ("--rounds", "--prompt-tokens", "--new-tokens"):
        assert "above zero, found '0'" in usage_error(capsys, option, "0")
    assert "invalid choice: '2b'" in usage_error(capsys, "--shape", "2b")
    assert "not both" in usage_error(capsys, "somewhere", "--shape", "tiny")
    assert "invalid choice" in usage_error(capsys, "--quantization", "int3")


def test_failures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such directory: nowhere" in failure(capsys, "nowhere")
    assert "threads" in failure(capsys, "--shape", "tiny", "--threads", "0")
    assert "longest sequence" in failure(
        capsys, "--shape", "tiny", "--prompt-tokens", "9000"
    ).replace("longer than the model's limit", "longest sequence")
    file = str(tmp_path / "no" / "file.json")
    assert "No such file" in failure(capsys, "--shape", "tiny", *QUICK, "--json", file)


def test_a_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "speed.png"
    arguments = ["--shape", "tiny", *QUICK, "--batch", "1,2", "--plot", str(file)]
    assert main(["bench", *arguments]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        plot.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    text = failure(capsys, "--shape", "tiny", *QUICK, "--plot", "x.png")
    assert 'pip install "infinilm[plot]"' in text


def test_a_limit_is_the_mean_of_before_and_after() -> None:
    limits = iter([10.0, 30.0])
    done: list[Any] = []
    seconds, limit = measure._beside(lambda: done.append(1), lambda: next(limits))
    assert limit == 20
    assert seconds >= 0
    assert done == [1]
