"""The customer's usage example, as written, with its commented-out lines enabled (sizes that fit into a test)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import engine


def test_the_customer_s_example(capsys: pytest.CaptureFixture[str]) -> None:
    # Python 端使用示例

    from infinilm import HookRegistry, LlamaConfig

    # 1. 创建并配置 Llama 模型
    config = LlamaConfig()
    config.vocab_size = 128000
    config.hidden_size = 4096
    config.num_hidden_layers = 32
    config.num_attention_heads = 32
    config.num_key_value_heads = 8  # 启用 GQA
    config.max_position_embeddings = 8192
    config.rope_theta = 10000.0

    # 2. 验证配置合法性
    assert config.validate(), "Invalid configuration"
    print(f"KV dimension: {config.kv_dim()}")  # 输出: 4096 * 8 / 32 = 1024

    # 3. 设置特殊 token（支持单个或多个）
    config.bos_token_id = 1  # 单个 token
    config.eos_token_id = [2, 3]  # 多个 token（兼容多轮对话）

    # 4. 使用 HookRegistry 捕获中间结果（调试模式）
    hook_registry = HookRegistry()

    def tensor_callback(hook_name: str, tensor, layer_idx: int):  # type: ignore[no-untyped-def]
        """Python 回调函数，接收 C++ 传递的张量"""
        print(f"[Layer {layer_idx}] {hook_name}: shape={tensor.shape}, dtype={tensor.dtype}")
        # 可以进行可视化、统计分析或保存到磁盘

    # 注册特定中间节点的钩子
    hook_registry.register_hook("layer0_q_after_proj", tensor_callback)
    hook_registry.register_hook("layer0_k_after_proj", tensor_callback)
    hook_registry.register_hook("layer0_attention_output", tensor_callback)

    model, input_ids = small_model(config)

    # 5. 将 hook_registry 传递给 C++ 模型（假设模型已加载）
    model.set_hook_registry(hook_registry, "prefix")

    # 6. 运行推理，钩子会自动触发
    output = model.generate(input_ids)

    # 7. 清理钩子
    hook_registry.clear()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "KV dimension: 1024"
    assert (config.bos_token_id, config.eos_token_id) == ([1], [2, 3])
    assert lines[1:4] == [
        "[Layer 0] prefix_layer0_q_after_proj: shape=(4, 64), dtype=float32",
        "[Layer 0] prefix_layer0_k_after_proj: shape=(4, 16), dtype=float32",
        "[Layer 0] prefix_layer0_attention_output: shape=(4, 64), dtype=float32",
    ]
    assert list(output[:4]) == input_ids
    assert len(output) > len(input_ids)
    assert not hook_registry.has_hooks()


def small_model(config: infinilm.LlamaConfig) -> tuple[infinilm.LlamaForCausalLM, list[int]]:
    """A loaded model: the example's config with smaller sizes, and random weights."""
    import copy

    small = copy.copy(config)
    small.vocab_size = 100
    small.hidden_size = 64
    small.intermediate_size = 128
    small.num_hidden_layers = 2
    small.max_position_embeddings = 16
    small.num_attention_heads = 32
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {
        parameter.name: rng.normal(scale=0.1, size=parameter.shape).astype(np.float32)
        for parameter in engine.parameters(small)
    }
    model = infinilm.LlamaForCausalLM(small)
    model.load_state_dict(state)
    return model, [1, 5, 9, 13]


def test_the_example_s_directory_of_a_model(tmp_path: Path) -> None:
    """The config that the example makes goes to a file and comes back."""
    config = infinilm.LlamaConfig(num_key_value_heads=8, eos_token_id=[2, 3], attention_bias=False)
    config.save_pretrained(tmp_path)
    back = infinilm.LlamaConfig.from_pretrained(tmp_path)
    assert back.eos_token_id == [2, 3]
    assert back.num_key_value_heads == 8
