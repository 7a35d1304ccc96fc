"""The NEON kernels, cross-compiled and run under emulation: they agree with the plain ones, which NumPy checks here."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "core"
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.skipif(not CORE.is_dir(), reason="not a source checkout"),
    pytest.mark.skipif(
        platform.machine() in ("aarch64", "arm64"), reason="all tests run on NEON here"
    ),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no {COMPILER}"),
    pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """core/tests/test_kernels.cpp with what it needs of the core, which is quicker than all of it."""
    sources = [
        path
        for folder in ("cpu", "base")
        for path in sorted((CORE / folder).glob("*.cpp"))
        if path.name != "runtime.cpp" and not path.name.startswith(("kernels_avx", "kernels_amx"))
    ]
    others = ("ops/ops.cpp", "ops/devices.cpp", "quant/quantize.cpp", "tests/test_kernels.cpp")
    output = tmp_path_factory.mktemp("neon") / "test_kernels"
    command = [
        COMPILER, "-std=c++20", "-O2", "-ffp-contract=off", "-static", "-DINFINILM_NEON",
        "-DINFINILM_WITH_CUDA=0", "-DINFINILM_PLUGIN_ABI=0u", f"-I{CORE}", f"-I{CORE / 'include'}",
        *map(str, sources), *(str(CORE / name) for name in others), "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return output


@pytest.mark.parametrize("level", ["neon", "scalar"])
def test_kernels_under_emulation(program: Path, level: str) -> None:
    done = subprocess.run(
        [str(EMULATOR), "-E", f"INFINILM_CPU={level}", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 tests, 0 failures" in done.stdout + done.stderr
