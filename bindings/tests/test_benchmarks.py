"""The benchmarks run and print finite numbers. What the numbers are is no matter of a test."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not a source checkout"),
    pytest.mark.skipif(os.name != "posix", reason="POSIX only"),
]


def run(script: str, *arguments: str, folder: Path) -> tuple[str, Any]:
    """What a script prints, and what it writes with --json."""
    file = folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def numbers(value: Any) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of the benchmarks, whose siblings have plain names."""
    before = set(sys.modules)
    for folder in (BENCHMARKS, BENCHMARKS / "compare", BENCHMARKS / "compare" / "convert"):
        monkeypatch.syspath_prepend(str(folder))

    def load(path: str) -> ModuleType:
        return importlib.import_module(path)

    yield load
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_hooks(tmp_path: Path) -> None:
    printed, written = run(
        "hooks.py", "--shape", "tiny", "--threads", "1", "--rounds", "2", "--tokens", "5",
        "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "µs a callback" in printed
    callbacks = {case["hooks"]: case["callbacks"] for case in written["cases"]}
    assert callbacks["plain"] == callbacks["one that never matches"] == 0
    assert callbacks["scores and weights, NumPy view"] == 4  # two layers
    assert callbacks["every point, NumPy view"] > 30
    assert all(math.isfinite(number) for number in numbers(written))


def test_context(tmp_path: Path) -> None:
    printed, written = run(
        "context.py", "--shape", "tiny", "--threads", "1", "--rounds", "2", "--decode", "2",
        "--contexts", "64", "192", "--formats", "int8", "--kv-cache-dtypes", "bfloat16", "int8",
        "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "over the bytes" in printed
    wide, narrow = written["results"]
    kept = [result["bytes"][1] - result["bytes"][0] for result in (wide, narrow)]
    assert kept[0] == 128 * 2 * 2 * 2 * 16 * 2  # tokens, layers, k and v, two heads, bytes
    assert kept[1] < 0.7 * kept[0]
    assert all(len(taken) == 2 for taken in wide["seconds"])


def test_neighbour(tmp_path: Path) -> None:
    printed, written = run(
        "neighbour.py", "--shape", "tiny", "--threads", "2", "--rounds", "2", "--prefill", "9",
        "--decode", "3", "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "beside / alone" in printed
    assert len(written["rounds"]) == 2
    assert all(math.isfinite(number) for number in numbers(written))


def test_loading(tmp_path: Path) -> None:
    printed, written = run(
        "loading.py", "--shape", "tiny", "--stored", "bfloat16", "--format", "int4 g128",
        "--threads", "2", "--rounds", "2", "--folder", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "load takes, times" in printed
    assert all(len(taken) == 2 for taken in written["seconds"].values())
    assert written["weight_bytes"] > 0


def test_compare(tmp_path: Path) -> None:
    printed, written = run(
        "compare", "--shape", "tiny", "--peers", "none", "--classes", "f32", "bf16",
        "--threads", "2", "--rounds", "2", "--repeats", "2", "--prefill", "24", "--prompt", "8",
        "--decode", "4", "--cache", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "prefill tok/s" in printed
    assert "nan" not in printed
    assert [r["candidate"]["kind"]["label"] for r in written["results"]] == ["float32", "bfloat16"]
    for result in written["results"]:
        assert not result["failure"]
        assert len(result["samples"]) == 4
        assert all(math.isfinite(number) for number in numbers(result["samples"]))
        assert min(sample["decode"] for sample in result["samples"]) > 0
        assert len(result["tokens"]) == 5


def test_accuracy(tmp_path: Path) -> None:
    printed, written = run(
        "accuracy.py", "--window", "32", "--windows", "2", "--threads", "1", "--only",
        "infinilm bfloat16", "infinilm int", "--cache", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "KL" in printed
    assert len(written["results"]) == 8
    formats = {errors["name"].removeprefix("infinilm "): errors for errors in written["results"]}
    reference, rounded = formats["float32"], formats["bfloat16"]
    assert reference["name"] == "infinilm float32"
    assert reference["kl"] == 0
    assert reference["agreement"] == 1
    assert 0 < rounded["kl"] < 1e-3
    assert rounded["kl"] < formats["int8"]["kl"] < formats["int4 g32"]["kl"] < 0.1
    assert formats["bfloat16"]["bits"] > formats["int8"]["bits"] > formats["int4 g32"]["bits"]
    assert rounded["kl"] <= rounded["kl_99"]
    assert rounded["perplexity"] == pytest.approx(reference["perplexity"], rel=0.05)


def test_accuracy_of_a_random_model(tmp_path: Path) -> None:
    _, written = run(
        "accuracy.py", "--shape", "tiny", "--window", "16", "--windows", "2", "--threads", "1",
        "--only", "infinilm float32", "--cache", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    (reference,) = written["results"]
    assert 1 < reference["perplexity"] < 256


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory(tmp_path: Path) -> None:
    printed, written = run(
        "memory.py", "--shape", "tiny", "--formats", "float32", "bfloat16", "int4 g32",
        "--kv-cache-dtype", "int8", "--threads", "1", "--cache", str(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert "over the weights" in printed
    for figures in written:
        assert figures["forward"] >= figures["load"] > 0
        assert figures["weights"] > 0
    float32, bfloat16, int4 = written
    assert float32["weights"] == bfloat16["weights"] > int4["weights"]  # stored as bfloat16
    assert float32["cache"] == int4["cache"]


def test_operations(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    printed, written = run(
        "operations.py", "--only", "rows", "attention", "--threads", "1", "--rounds", "1",
        "--buffer-mb", "1", folder=tmp_path,
    )  # fmt: skip
    assert "rms_norm, 512 rows" in printed
    assert len(written) == 9
    assert "nan" not in printed


def test_operations_of_every_format(modules: Any, tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    _, written = run(
        "operations.py", "--only", "linear", "--threads", "1", "--rounds", "1", "--rows", "2",
        "--buffer-mb", "1", folder=tmp_path,
    )  # fmt: skip
    measured = [line["operation"] for line in written]
    names = [*modules("models").FORMATS, "bfloat16 in float32"]
    assert sorted(measured) == sorted(f"linear {name}, M=2" for name in names)


def test_a_failing_engine_does_not_stop_the_others(modules: Any, tmp_path: Path) -> None:
    worker, peers = modules("worker"), modules("peers")
    kind = peers.PEERS["infinilm"].kinds[0]
    with pytest.raises(worker.Failed, match=r"No such file|FileNotFound"):
        worker.Worker("infinilm", tmp_path / "nowhere", tmp_path, kind, 1)


def test_kl_divergence(modules: Any) -> None:
    accuracy = modules("accuracy")
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    found = accuracy.kl_divergence(np.log(p), np.log(q))
    assert found == pytest.approx(0.25 * np.log(2))
    logits = np.float32([[1000.0, 999.0, -1000.0]])
    log_p = accuracy.log_softmax(logits)
    assert np.exp(log_p).sum() == pytest.approx(1)
    assert accuracy.kl_divergence(log_p, log_p) == 0


def test_perplexity_looks_at_the_next_token(modules: Any) -> None:
    accuracy = modules("accuracy")
    ids = [2, 0, 1, 1] * 40  # longer than the rows that are taken at a time
    sure = np.full((len(ids), 3), -30.0, np.float32)
    sure[np.arange(len(ids) - 1), ids[1:]] = 30.0
    errors = accuracy.compare_logits("x", [ids], [sure], [sure])
    assert errors.perplexity == pytest.approx(1)
    assert errors.agreement == 1
    flat = accuracy.compare_logits("x", [ids], [sure], [np.zeros_like(sure)])
    assert flat.perplexity == pytest.approx(3)


def test_rows_are_interleaved_for_gguf(modules: Any) -> None:
    rows = np.arange(8)[:, None]  # two heads of two halves of two
    found = modules("gguf_file").interleave(rows, 2)
    assert found[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_names_of_gguf(modules: Any) -> None:
    name = modules("gguf_file").gguf_name
    assert name("model.layers.11.mlp.down_proj.weight") == "blk.11.ffn_down.weight"
    assert name("lm_head.weight") == "output.weight"


def test_ratios_are_taken_round_by_round(modules: Any) -> None:
    sampling, tables = modules("sampling"), modules("tables")
    candidate = modules("candidates").Candidate
    kinds = modules("peers").PEERS["infinilm"].kinds

    def result(rates: list[float]) -> Any:
        samples = [sampling.Sample(i, rate, rate, 1, 1, 0, 0) for i, rate in enumerate(rates)]
        return sampling.Result(candidate("other", kinds[0]), samples=samples)

    slow, fast = result([1.0, 10.0]), result([2.0, 20.0])
    assert tables.best([slow, fast], "decode") is fast
    assert tables.ratio(fast, slow, "decode").startswith("2 (2–2) × other")
    assert tables.best([], "decode") is None
    assert tables.equal_tokens([1, 2, 3], [1, 2, 4]) == 2


def test_bytes_of_a_pass(modules: Any, tmp_path: Path) -> None:
    peers, models = modules("peers"), modules("models")
    checkpoint = models.make_checkpoint("tiny", "bfloat16", tmp_path)
    assert models.make_checkpoint("tiny", "bfloat16", tmp_path) == checkpoint
    layers = 2 * (2 * 64 * 16 * 6 + 3 * 64 * 160)
    kind = peers.Kind("x", "int4", "int8", 4.5, 8)
    assert peers.nbytes_per_pass(checkpoint, kind) == (layers * 4.5 + 256 * 64 * 8) // 8


def test_what_is_missing_is_named(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = modules("candidates")
    monkeypatch.setattr(candidates.importlib.util, "find_spec", lambda name: None)
    here, missing = candidates.installed(["llama.cpp"])
    assert not here
    assert missing == ["llama.cpp: not installed (llama_cpp, gguf)"]


def test_candidates_are_chosen_by_class_and_text(modules: Any) -> None:
    chosen = modules("candidates").candidates(["infinilm", "llama.cpp"], ["int4"], ["Q4_0", "g32"])
    names = list(map(str, chosen))
    assert "llama.cpp Q4_0" in names
    assert "llama.cpp Q4_0, no repacking" in names
    assert "infinilm int4 g32" in names
    assert not any("Q4_K" in name or "Q8" in name or "g128" in name for name in names)


def test_a_failing_converter_is_named(modules: Any, tmp_path: Path) -> None:
    candidates, peers = modules("candidates"), modules("peers")
    candidate = candidates.Candidate("llama.cpp", peers.PEERS["llama.cpp"].kinds[0])
    found = candidates.prepare(candidate, tmp_path / "nowhere", tmp_path, [sys.executable])
    assert found.startswith("llama.cpp F32: gguf_file.py failed: ")
    assert list(tmp_path.iterdir()) == []
    done = tmp_path / "nowhere-F32.gguf"
    done.touch()
    assert candidates.prepare(candidate, tmp_path / "nowhere", tmp_path, ["no-python"]) is None
