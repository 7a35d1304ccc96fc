"""What asking for CUDA says where something is missing. Needs no GPU; each case is a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import infinilm
import pytest
from devices import NO_CUDA

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
