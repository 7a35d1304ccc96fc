"""Where NVIDIA's wheels keep the libraries that the engine opens when a CUDA device is used."""

import os
import sys

from infinilm import engine

_FOLDER = os.path.join("nvidia", "cu13", "lib")
_CUBLASLT = "libcublasLt.so.13"


def find_libraries() -> None:
    """Tell the engine where the nvidia-cublas wheel is, if it is installed (the extra ``infinilm[cuda]``)."""
    for entry in sys.path:
        folder = os.path.join(entry, _FOLDER)
        if os.path.isfile(os.path.join(folder, _CUBLASLT)):
            engine.set_cuda_library_path(os.path.abspath(folder))
            return
