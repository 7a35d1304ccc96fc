"""Random checkpoints, made by torch on the GPU: seconds where NumPy takes minutes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infinilm.benchmark.random_model import tensor_shapes
from infinilm.benchmark.shapes import SHAPES, Shape


def _folder() -> Path:
    """In memory where there is room for it; kept for the stages that follow, and gone with the machine."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and _free(shared) > 40e9
    return (shared if roomy else Path(tempfile.gettempdir())) / f"gpu_check_{os.getuid()}"


def _free(path: Path) -> float:
    status = os.statvfs(path)
    return float(status.f_bavail * status.f_frsize)


def _write(directory: Path, shape: Shape) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {}
    for name, size in tensor_shapes(shape).items():
        if len(size) == 1:
            tensors[name] = torch.ones(size, dtype=torch.bfloat16)
        else:
            deviation = 0.02 if size[0] != shape.vocab else 1.0 / size[1] ** 0.5
            values = torch.randn(size, device="cuda", dtype=torch.bfloat16) * deviation
            tensors[name] = values.cpu()
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(shape.config("bfloat16")))


@contextmanager
def checkpoint(name: str) -> Iterator[Path]:
    """A directory with the shape's model; made once."""
    directory = _folder() / name
    if not (directory / "config.json").exists():
        _write(directory, SHAPES[name])
    yield directory
