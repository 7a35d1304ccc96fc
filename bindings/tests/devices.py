"""The devices that tests run on: always the CPU, and a CUDA device where there is one.

``INFINILM_CUDA_PLUGIN`` may name the plug-in of core/tests/guarded_plugin.cpp, which stands in for a device: its memory
cannot be touched from outside, its arithmetic is the CPU's; or that of core/cuda/tests/emulated_plugin.cpp, which runs
the CUDA kernels on the CPU, slowly.
"""

from __future__ import annotations

import infinilm
import pytest


def why_no_cuda() -> str:
    """Return the reason why there is no CUDA device here; empty if there is one."""
    try:
        infinilm.cuda_devices()
    except RuntimeError as error:
        return str(error)
    return ""


NO_CUDA = why_no_cuda()
NAME = "" if NO_CUDA else infinilm.cuda_devices()[0].name
IS_GUARDED = NAME.startswith("guarded memory")
IS_EMULATED = NAME.startswith("emulated")
needs_cuda = pytest.mark.skipif(bool(NO_CUDA), reason=f"no CUDA device: {NO_CUDA}")
needs_gpu = pytest.mark.skipif(
    bool(NO_CUDA) or IS_GUARDED or IS_EMULATED, reason=f"no CUDA device: {NO_CUDA or NAME}"
)
needs_two = pytest.mark.skipif(
    bool(NO_CUDA) or len(infinilm.cuda_devices()) < 2, reason="fewer than two CUDA devices"
)
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
