"""A tiny model, and the registry that it hears."""

from __future__ import annotations

import pytest
from infinilm import HookRegistry, engine
from tiny import tiny_model


@pytest.fixture
def model() -> engine.LlamaForCausalLM:
    return tiny_model()


@pytest.fixture
def registry(model: engine.LlamaForCausalLM) -> HookRegistry:
    registry = HookRegistry()
    model.set_hook_registry(registry)
    return registry
