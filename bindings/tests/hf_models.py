"""Random checkpoints of every model option from Transformers, and what it computes with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

VOCAB = 97
LAYERS = 2
transformers.utils.logging.disable_progress_bar()
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": None,
    "head_dim": 12,
}
HEAD_DIM_FREE = ("qwen2",)  # its config has no head_dim


def rope(rope_type: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **fields}}


LONGROPE = {
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5],
    "long_factor": [1.0, 1.4, 2.0, 3.0, 5.0, 8.0],
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}

# name: (model type, fields of its config). "checkpoint" says how it is stored.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_mha": ("llama", {"num_key_value_heads": 4}),
    "llama_mqa": ("llama", {"num_key_value_heads": 1}),
    "llama_one_head": ("llama", {"num_attention_heads": 1, "num_key_value_heads": 1,
                                 "head_dim": 48}),
    "llama_attention_bias": ("llama", {"attention_bias": True}),
    "llama_mlp_bias": ("llama", {"mlp_bias": True}),
    "llama_all_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_head_dim_wider": ("llama", {"head_dim": 20}),
    "llama_head_dim_narrower": ("llama", {"head_dim": 6}),
    "llama_swish": ("llama", {"hidden_act": "swish"}),
    "llama_gelu": ("llama", {"hidden_act": "gelu"}),
    "llama_gelu_new": ("llama", {"hidden_act": "gelu_new"}),
    "llama_gelu_pytorch_tanh": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "llama_relu": ("llama", {"hidden_act": "relu"}),
    "llama_eps": ("llama", {"rms_norm_eps": 1e-2}),
    "llama_odd_sizes": ("llama", {"vocab_size": 131, "hidden_size": 36, "intermediate_size": 67,
                                  "num_attention_heads": 6, "num_key_value_heads": 3,
                                  "head_dim": 6}),
    "rope_theta": ("llama", rope("default", rope_theta=500.0)),
    "rope_linear": ("llama", rope("linear", factor=3.0)),
    "rope_dynamic_short": ("llama", rope("dynamic", factor=4.0)),
    "rope_dynamic_long": ("llama", {**rope("dynamic", factor=4.0), "max_position_embeddings": 12}),
    "rope_llama3": ("llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_position_embeddings=16)),
    "rope_yarn": ("llama", rope("yarn", **YARN)),
    "rope_yarn_attention_factor": ("llama", rope("yarn", attention_factor=0.7, **YARN)),
    "rope_yarn_betas": ("llama", rope("yarn", beta_fast=8.0, beta_slow=0.5, **YARN)),
    "rope_yarn_mscale": ("llama", rope("yarn", mscale=0.707, mscale_all_dim=0.9, **YARN)),
    "rope_yarn_truncate": ("llama", rope("yarn", truncate=False, beta_fast=4.0, **YARN)),
    "rope_longrope_short": ("llama", rope("longrope", original_max_position_embeddings=48,
                                          factor=1.5, **LONGROPE)),
    "rope_longrope_long": ("llama", rope("longrope", original_max_position_embeddings=8, factor=8.0,
                                         **LONGROPE)),
    "rope_longrope_attention_factor": ("llama", rope("longrope", original_max_position_embeddings=8,
                                                     attention_factor=1.3, **LONGROPE)),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 5}),
    "mistral_window_of_one": ("mistral", {"sliding_window": 1}),
    "mistral_wide_window": ("mistral", {"sliding_window": 4096}),
    "qwen2": ("qwen2", {}),
    "qwen2_tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_yarn": ("qwen2", rope("yarn", **YARN)),
    "qwen2_window": ("qwen2", {"use_sliding_window": True, "sliding_window": 6,
                               "max_window_layers": 0}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_coupled_head_dim": ("qwen3", {}),
    "qwen3_bias_tied": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    "bfloat16": ("llama", {"checkpoint": {"dtype": "bfloat16"}}),
    "float16": ("llama", {"checkpoint": {"dtype": "float16"}}),
    "float16_biases": ("llama", {"attention_bias": True, "mlp_bias": True,
                                 "checkpoint": {"dtype": "float16", "shards": True}}),
    "sharded": ("llama", {"checkpoint": {"shards": True}}),
    "sharded_bfloat16_tied": ("llama", {"tie_word_embeddings": True,
                                        "checkpoint": {"dtype": "bfloat16", "shards": True}}),
    "old_layout": ("llama", {"checkpoint": {"old_layout": True}}),
    "old_layout_theta": ("llama", {**rope("default", rope_theta=777.0),
                                   "checkpoint": {"old_layout": True}}),
    "old_layout_llama3": ("llama", {**rope("llama3", factor=8.0, low_freq_factor=1.0,
                                           high_freq_factor=4.0, rope_theta=5e5,
                                           original_max_position_embeddings=16),
                                    "checkpoint": {"old_layout": True}}),
    "old_layout_yarn": ("qwen2", {**rope("yarn", **YARN), "checkpoint": {"old_layout": True}}),
    "old_layout_bfloat16": ("mistral", {"sliding_window": 7, "checkpoint": {
        "old_layout": True, "dtype": "bfloat16"}}),
}  # fmt: skip

# Prefill and decode see other angles there: the base follows the length of the sequence so far.
LENGTH_DEPENDENT = ("rope_dynamic_long",)

# Transformers' cache keeps all tokens there instead of none (a slice from -0), so that its decoding
# and its prefill differ.
WRONGLY_CACHED = ("mistral_window_of_one",)


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights that make every part of the model count, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)


def to_old_layout(directory: Path) -> None:
    """Rewrites config.json as Transformers 4 wrote it: rope_theta, rope_scaling, torch_dtype."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def make_checkpoint(name: str, directory: Path) -> Path:
    """Writes the checkpoint of a case as Transformers does."""
    model_type, fields = CASES[name]
    fields = {**SIZES, **fields}
    checkpoint = fields.pop("checkpoint", {})
    if model_type in HEAD_DIM_FREE:
        del fields["head_dim"]
    config = transformers.AutoConfig.for_model(model_type, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, seed=sorted(CASES).index(name))
    model.to(getattr(torch, checkpoint.get("dtype", "float32")))
    limit = {"max_shard_size": 20_000} if checkpoint.get("shards") else {}
    model.save_pretrained(directory, **limit)
    if checkpoint.get("shards"):
        assert len(list(directory.glob("*.safetensors"))) > 2
    if checkpoint.get("old_layout"):
        to_old_layout(directory)
    return directory


def load_reference(directory: Path) -> Any:
    """Transformers' model in float32, with the attention that shows its scores."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def logits_of(model: Any, ids: Sequence[int] | Sequence[Sequence[int]]) -> np.ndarray:
    """[tokens, V] or [batch, tokens, V]."""
    tensor = torch.tensor(ids)
    with torch.no_grad():
        logits = model(tensor if tensor.ndim == 2 else tensor[None], use_cache=False).logits
    return (logits if tensor.ndim == 2 else logits[0]).numpy()


def decoded_logits(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
    """The logits that each token of the continuation is chosen from, [len(continuation), V]."""
    rows = []
    with torch.no_grad():
        out = model(torch.tensor([prompt]), use_cache=True)
        rows.append(out.logits[0, -1])
        for token in continuation[:-1]:
            out = model(
                torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True
            )
            rows.append(out.logits[0, -1])
    return torch.stack(rows).numpy()


Values = dict[str, np.ndarray]


def _keep(values: Values, name: str, of: Callable[[Any, Any], Any]) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any = None) -> None:
        value = of(inputs, output)
        values[name] = value.detach().numpy().copy()

    return hook


def _is_first_input(inputs: Any, output: Any) -> Any:
    return inputs[0]


def _is_output(inputs: Any, output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _module_hooks(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """(hook point, module, whether it is the output) of all that a module's border shows."""
    inner = model.model
    yield "embed_tokens", inner.embed_tokens, True
    for i, layer in enumerate(inner.layers):
        attention, mlp, p = layer.self_attn, layer.mlp, f"layer{i}_"
        yield f"{p}input_layernorm", layer.input_layernorm, True
        for x in "qkv":
            yield f"{p}attention_{x}_after_proj", getattr(attention, f"{x}_proj"), True
        yield f"{p}attention_attn_flat_before_o_proj", attention.o_proj, False
        yield f"{p}attention_output", attention.o_proj, True
        yield f"{p}before_post_attention_layernorm", layer.post_attention_layernorm, False
        yield f"{p}post_attention_layernorm", layer.post_attention_layernorm, True
        yield f"{p}mlp_gate_proj", mlp.gate_proj, True
        yield f"{p}mlp_up_proj", mlp.up_proj, True
        yield f"{p}mlp_intermediate", mlp.down_proj, False
        yield f"{p}mlp", mlp, True
        yield f"{p}input", layer.input_layernorm, False
        yield f"{p}output", layer, True
    yield "before_final_norm", inner.norm, False
    yield "final_norm", inner.norm, True
    yield "hidden_states_before_lm_head", model.lm_head, False
    yield "logits", model.lm_head, True


@contextmanager
def _watched_attention(model: Any, values: Values) -> Iterator[None]:
    """Wraps the two functions of the model's own source file that no module's border shows."""
    source = sys.modules[type(model).__module__]
    rotate, attend = source.apply_rotary_pos_emb, source.eager_attention_forward
    layer = iter(range(len(model.model.layers)))

    def keep(name: str, tensor: Any) -> None:  # [B, heads, T, D] -> [B, T, heads, D]
        values[name] = tensor.transpose(1, 2).detach().numpy().copy()

    def watched_rotate(q: Any, k: Any, *args: Any, **kwargs: Any) -> Any:
        prefix = f"layer{next(layer)}_attention_"
        keep(prefix + "q_before_rope", q)
        keep(prefix + "k_before_rope", k)
        q, k = rotate(q, k, *args, **kwargs)
        keep(prefix + "q_after_rope", q)
        keep(prefix + "k_after_rope", k)
        return q, k

    def watched_attend(
        module: Any, q: Any, k: Any, v: Any, mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        output, weights = attend(module, q, k, v, mask, *args, **kwargs)
        prefix = f"layer{module.layer_idx}_attention_"
        scores = q @ source.repeat_kv(k, module.num_key_value_groups).transpose(2, 3)
        scores = (scores * module.scaling).masked_fill(mask < 0, -torch.inf)
        values[prefix + "scores"] = scores.detach().numpy().copy()
        values[prefix + "weights"] = weights.detach().numpy().copy()
        return output, weights

    source.apply_rotary_pos_emb, source.eager_attention_forward = watched_rotate, watched_attend
    try:
        yield
    finally:
        source.apply_rotary_pos_emb, source.eager_attention_forward = rotate, attend


def every_value(model: Any, ids: Sequence[Sequence[int]]) -> Values:
    """What Transformers has at each of the engine's hook points, for a rectangular batch."""
    values: Values = {}
    handles = []
    for name, module, is_output in _module_hooks(model):
        if is_output:
            handles.append(module.register_forward_hook(_keep(values, name, _is_output)))
        else:
            handles.append(module.register_forward_pre_hook(_keep(values, name, _is_first_input)))
    try:
        with torch.no_grad(), _watched_attention(model, values):
            model(torch.tensor(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    head_dim = model.model.layers[0].self_attn.head_dim
    for name in [name for name in values if name.endswith("_after_proj")]:
        flat = values[name]
        heads = flat.reshape(*flat.shape[:-1], -1, head_dim)
        values[name.replace("after_proj", "after_reshape")] = heads
    return values
