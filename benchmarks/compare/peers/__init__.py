"""The engines that are compared, each in a file of its own."""

from .base import CLASSES, Kind, Peer, nbytes_per_pass
from .ctranslate2_peer import CTranslate2
from .infinilm_peer import Infinilm
from .llama_cpp_peer import LlamaCpp
from .onnxruntime_peer import OnnxRuntime
from .openvino_peer import OpenVino
from .transformers_peer import Transformers

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (Infinilm, LlamaCpp, Transformers, CTranslate2, OpenVino, OnnxRuntime)
}

__all__ = ["CLASSES", "PEERS", "Kind", "Peer", "nbytes_per_pass"]
