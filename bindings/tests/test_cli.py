"""The command line, called as a function and as a program."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm.cli import main
from text_models import byte_level, write_model, write_tokenizer

COMMANDS = ("generate", "chat", "inspect", "trace", "quantize", "bench")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), byte_level())


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infinilm", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a failing command says: one line on standard error."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("infinilm: error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_generate_with_the_sample_model(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = infinilm.load(infinilm.sample_model())
    for flags, options in (
        (["--temperature", "0"], {}),
        (["--seed", "4"], {"temperature": 0.8, "seed": 4}),
    ):
        assert main(["generate", "ROMEO:", "--max-new-tokens", "20", *flags]) == 0
        text = model.generate("ROMEO:", max_new_tokens=20, **options)
        assert capsys.readouterr().out.rstrip("\n") == text.rstrip("\n")


def test_generate_options(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    model = infinilm.LlamaForCausalLM.from_pretrained(directory)
    options: dict[str, Any] = {
        "temperature": 2.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "seed": 3, "max_new_tokens": 12,
    }  # fmt: skip
    expected = model.generate("the", stop=["qqq"], **options)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    arguments = ["generate", "the", "-m", str(directory), *flags, "--stop", "qqq"]
    assert main([*arguments, "--dtype", "float32", "--device", "cpu", "--threads", "1"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == expected.rstrip("\n")
    assert main([*arguments, "--continuation-only"]) == 0
    assert "the" + capsys.readouterr().out.rstrip("\n") == expected.rstrip("\n")
    infinilm.set_num_threads(2)


def test_prompt_sources(
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tail = ["--model", str(directory), "--max-new-tokens", "4"]
    assert main(["generate", "one é", *tail]) == 0
    expected = capsys.readouterr().out
    (tmp_path / "prompt").write_text("one é", encoding="utf-8")
    assert main(["generate", "--prompt-file", str(tmp_path / "prompt"), *tail]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("one é"))
    assert main(["generate", "-", *tail]) == 0
    assert capsys.readouterr().out == expected


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'generate'" in usage_error(capsys, "genrate", "x")
    text = usage_error(capsys, "generate", "x", "--temprature", "3")
    assert "did you mean --temperature" in text
    assert "infinilm generate --help" in text
    assert "did you mean --max-new-tokens" in usage_error(capsys, "generate", "x", "--max-tokens=3")
    assert "quote a prompt" in usage_error(capsys, "generate", "Once", "upon")
    assert "give a prompt" in usage_error(capsys, "generate")
    assert "not both" in usage_error(capsys, "generate", "x", "--prompt-file", "y")
    assert "invalid int value" in usage_error(capsys, "generate", "x", "--top-k", "many")
    assert "required" in usage_error(capsys)
    assert "there are generate, chat, inspect, trace, quantize, bench" in usage_error(capsys, "zzz")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert "examples:\n  infinilm " in text
        assert max(len(line) for line in text.splitlines()) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"infinilm {infinilm.__version__} (")
    assert infinilm.cpu_level() in text


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_directory(capsys: pytest.CaptureFixture[str], command: str) -> None:
    alone = {"inspect": ["nowhere"], "bench": ["nowhere"], "quantize": ["nowhere", "out"]}
    where = alone.get(command, ["--model", "nowhere"])
    prompt = ["x"] if command in ("generate", "trace") else []
    text = failure(capsys, command, *prompt, *where)
    assert "no such directory: nowhere" in text
    assert "sample model" in text
    where[where.index("nowhere")] = "meta-llama/Llama-3.2-1B"
    text = failure(capsys, command, *prompt, *where)
    assert "hf download meta-llama/Llama-3.2-1B --local-dir Llama-3.2-1B" in text


def test_a_file_in_place_of_a_directory(
    capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    text = failure(capsys, "generate", "x", "-m", str(directory / "model.safetensors"))
    assert "is a file" in text


def test_damaged_files(capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(directory, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    arguments = ("generate", "x", "--model", str(broken))
    assert "model.safetensors" in failure(capsys, *arguments)
    assert "model.safetensors" in failure(capsys, "inspect", str(broken))
    weights.unlink()
    assert "safetensors" in failure(capsys, *arguments)
    (broken / "config.json").write_text('{"model_type": "mamba"}')
    assert "mamba" in failure(capsys, *arguments)
    (broken / "config.json").unlink()
    assert "config.json" in failure(capsys, "inspect", str(broken))
    (broken / "tokenizer.json").write_text("{")
    assert "tokenizer.json" in failure(capsys, *arguments)


def test_failures_on_the_way(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    model = ("--model", str(directory))
    assert "top_p" in failure(capsys, "generate", "x", *model, "--top-p", "7")
    assert "--threads" in failure(capsys, "generate", "x", *model, "--threads", "0").replace(
        "threads", "--threads"
    )
    assert "float16" in failure(capsys, "generate", "x", *model, "--dtype", "float16")
    assert "dtype" in failure(capsys, "generate", "x", *model, "--dtype", "flaot32")
    assert "CUDA" in failure(capsys, "generate", "x", *model, "--device", "cuda").replace(
        "cuda", "CUDA"
    )
    assert "longest sequence" in failure(capsys, "generate", "x " * 300, *model)
    missing = failure(capsys, "generate", "--prompt-file", str(tmp_path / "none"), *model)
    assert "No such file" in missing
    (tmp_path / "latin").write_bytes(b"\xe9")
    assert "UTF-8" in failure(capsys, "generate", "-f", str(tmp_path / "latin"), *model)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "x", "--model", "nowhere", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_inspect(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    assert main(["inspect", str(directory)]) == 0
    text = capsys.readouterr().out
    model = infinilm.LlamaForCausalLM.from_pretrained(directory)
    assert f"{model.num_parameters():,}" in text
    assert "float32" in text
    assert "KV cache" in text
    assert "2 key-value heads" in text
    for point in model.hook_points():
        assert point.name.replace("layer0_", "layer{i}_").replace("layer1_", "layer{i}_") in text
    assert main(["inspect", str(directory), "--no-points"]) == 0
    assert "embed_tokens" not in capsys.readouterr().out


def test_inspect_reads_no_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = infinilm.LlamaConfig(num_key_value_heads=8, attention_bias=False)  # 7 B
    config.save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "none here" in text
    assert "GiB" in text


def test_inspect_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    shutil.copytree(directory, tmp_path / "part")
    path = tmp_path / "part" / "model.safetensors"
    tensors = infinilm.load_safetensors(path)
    kept = {name: t for name, t in tensors.items() if name != "model.norm.weight"}
    infinilm.save_safetensors(tmp_path / "new", kept)
    (tmp_path / "new").replace(path)
    assert main(["inspect", str(tmp_path / "part")]) == 0
    assert "1 tensors, such as model.norm.weight" in capsys.readouterr().out


def test_trace(capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.safetensors"
    points = ["--points", "layer#_mlp", "-p", "logits", "-p", "layer0_attention_scores"]
    arguments = ["trace", "the a", "--model", str(directory), *points, "--save", str(file)]
    assert main([*arguments, "--top", "2"]) == 0
    text = capsys.readouterr().out
    tensors = infinilm.load_safetensors(file)
    assert set(tensors) == {"layer0_mlp", "layer1_mlp", "logits", "layer0_attention_scores"}
    model = infinilm.LlamaForCausalLM.from_pretrained(directory)
    ids = model.tokenizer.encode("the a")
    logits = model(ids).numpy()
    np.testing.assert_allclose(tensors["logits"].numpy(), logits, atol=2e-5)
    row, column = np.unravel_index(np.abs(logits).argmax(), logits.shape)
    line = next(line for line in text.splitlines() if line.startswith("logits"))
    assert f"[{len(ids)}, {model.config.vocab_size}]" in line
    assert f"[{row}, {column}] {logits[row, column]:.4g}" in line
    assert f"{np.linalg.norm(logits.astype(np.float64)):.4g}" in line
    assert "nan" not in text
    assert "inf" not in text


def test_trace_default_and_unknown_points(
    capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    assert main(["trace", "the", "--model", str(directory)]) == 0
    text = capsys.readouterr().out
    assert "layer0_output" in text
    assert "layer1_output" in text
    assert "layer0_mlp" not in text
    text = failure(capsys, "trace", "the", "-m", str(directory), "--points", "layer0_mpl")
    assert "layer0_mlp" in text
    text = failure(
        capsys, "trace", "x", "-m", str(directory), "--save", str(directory / "no" / "file")
    )
    assert "no" in text


def test_chat(
    capsys: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = infinilm.load(directory)
    lines = "hello\n\n/reset\nhello\n/wrong\nmore\n/exit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    options = ["--max-new-tokens", "5", "--system", "S"]
    assert main(["chat", "--model", str(directory), *options]) == 0
    captured = capsys.readouterr()
    assert "/reset starts over" in captured.err
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "hello"}]
    first = loaded.chat(messages, max_new_tokens=5)
    messages += [
        {"role": "assistant", "content": first},
        {"role": "user", "content": "more"},
    ]
    second = loaded.chat(messages, max_new_tokens=5)
    assert captured.out == f"{first}\n{first}\n{second}\n"


def test_chat_without_template(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = failure(capsys, "chat")
    assert "no chat template" in text
    assert "infinilm generate" in text
    write_model(tmp_path, byte_level())
    write_tokenizer(tmp_path, byte_level())
    assert f"--model {tmp_path}" in failure(capsys, "chat", "--model", str(tmp_path))


def test_as_a_program(directory: Path) -> None:
    done = program("generate", "thé", "--model", str(directory), "--max-new-tokens", "3")
    assert done.returncode == 0
    assert done.stdout.startswith("thé")
    assert done.stderr == ""  # no progress bar where nobody looks
    failed = program("generate", "x", "--model", "nowhere")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert program("nonsense").returncode == 2
    listed = program("--help")
    assert listed.returncode == 0
    assert "generate" in listed.stdout


def test_standard_input_of_a_program(directory: Path) -> None:
    done = program(
        "generate", "-", "--model", str(directory), "--max-new-tokens", "2", input="thé\n"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("thé\n")


def test_broken_pipe_is_quiet(directory: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "infinilm", "generate", "x", "--model", str(directory)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode == 141


def test_interrupt_is_quiet(directory: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "infinilm", "chat", "--model", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    process.stdout.read(1)  # it runs
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == ""
