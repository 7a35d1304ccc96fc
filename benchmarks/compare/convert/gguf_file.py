#!/usr/bin/env python3
"""A HuggingFace checkpoint (Llama) as a GGUF file for llama.cpp, without a vocabulary.

    python gguf_file.py CHECKPOINT OUTPUT.gguf F32|BF16|Q8_0|Q4_0|Q4_K_M

The quantised kinds are made by llama.cpp itself out of BF16, without an importance matrix.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OTHER_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def gguf_name(name: str) -> str:
    """What GGUF calls a tensor of HuggingFace's."""
    name = name.removesuffix(".weight")
    if name in _OTHER_NAMES:
        return f"{_OTHER_NAMES[name]}.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def interleave(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of q or k in the order that llama.cpp rotates: HuggingFace's halves side by side."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def tensors(checkpoint: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names and values, bfloat16 as uint16."""
    import infinilm

    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in infinilm.load_safetensors(file).items():
            if str(tensor.dtype) not in ("float32", "bfloat16"):
                raise SystemExit(f"{name}: expected float32 or bfloat16, found {tensor.dtype}")
            values = tensor.numpy()
            yield name, values.view(np.uint16) if values.itemsize == 2 else values


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Exactly, out of bfloat16's bits."""
    if values.dtype == np.float32:
        return values
    wide: NDArray[np.float32] = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def describe(writer: Any, config: dict[str, Any]) -> None:
    """What GGUF is told of a config.json; no vocabulary."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope_theta(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def write(checkpoint: Path, file: Path, kind: str) -> None:
    """Writes F32 or BF16."""
    import gguf

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    writer = gguf.GGUFWriter(file, "llama")
    describe(writer, config)
    ftype = gguf.LlamaFileType
    writer.add_file_type(ftype.ALL_F32 if kind == "F32" else ftype.MOSTLY_BF16)
    for name, stored in tensors(checkpoint):
        values = stored
        if ".q_proj." in name or ".k_proj." in name:
            values = interleave(values, heads if ".q_proj." in name else kv_heads)
        if kind == "F32" or values.ndim == 1 or values.dtype == np.float32:
            writer.add_tensor(gguf_name(name), to_float32(values))
        else:
            bf16 = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(gguf_name(name), values.view(np.uint8), raw_dtype=bf16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rope_theta(config: dict[str, Any]) -> float:
    if config.get("rope_scaling"):
        raise SystemExit("this converter knows no rope scaling: take a checkpoint without")
    theta = config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta")
    return float(theta or 10000.0)


def quantise(source: Path, file: Path, kind: str) -> None:
    """Lets llama.cpp quantise a BF16 file."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(file).encode(), params)
    if status:
        raise SystemExit(f"llama.cpp could not quantise {source} to {kind}: status {status}")


def main(checkpoint: Path, file: Path, kind: str) -> None:
    """Writes the file; it has its name only when it is complete."""
    part = file.with_suffix(".part")
    if kind in ("F32", "BF16"):
        write(checkpoint, part, kind)
    else:
        source = file.with_name(f"{file.name.removesuffix(f'-{kind}.gguf')}-BF16.gguf")
        if not source.exists():
            main(checkpoint, source, "BF16")
        quantise(source, part, kind)
    part.replace(file)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
