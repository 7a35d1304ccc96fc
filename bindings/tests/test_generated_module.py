"""What SWIG made: nothing opaque, real signatures, documentation, and Python's attributes where C++ has getters."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import HookRegistry, LlamaConfig, Tensor, engine
from tiny import tiny_model

CLASSES = [
    value
    for value in vars(engine).values()
    if inspect.isclass(value) and value.__module__ != "typing"
]
PUBLIC = [kind for kind in CLASSES if hasattr(kind, "__swig_destroy__")]
FUNCTIONS = [
    value
    for name, value in vars(engine).items()
    if inspect.isfunction(value) and not name.startswith("_")
]


def methods_of(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    ]


def test_no_type_is_opaque_in_python() -> None:
    source = Path(str(engine.__file__)).read_text()
    assert "SWIGTYPE_p_" not in source


def test_no_attribute_is_opaque() -> None:
    """What an attribute gives is a Python value or a proxy, never SWIG's bare pointer."""
    model, registry = tiny_model(), HookRegistry()
    steps: list[engine.StepInfo] = []
    registry.register_hook("logits", lambda n, t, i: steps.append(engine.current_step()))
    model.set_hook_registry(registry)
    objects: list[Any] = [
        LlamaConfig(),
        infinilm.GenerationConfig(),
        registry.register_hook("layer0_mlp", lambda n, t, i: None),
        model.forward(np.array([1])),
        infinilm.Device("cpu"),
        steps[0],
        steps[0].sequences[0],
        engine.hook_points(model.config())[0],
        engine.hook_point_table()[0],
        engine.parameters(model.config())[0],
        engine.Ceilings(1 << 20).peak("float32"),
    ]
    seen = set()
    for value in objects:
        for name, attribute in inspect.getmembers(type(value), inspect.isdatadescriptor):
            if isinstance(attribute, property) and name != "thisown":
                found = getattr(value, name)
                assert "Swig" not in type(found).__name__, f"{type(value).__name__}.{name}"
                seen.add((type(value).__name__, name))
    assert {("StepInfo", "sequences"), ("HookPoint", "aliases"), ("Tensor", "device")} <= seen


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_methods_have_signatures(kind: type) -> None:
    for name, method in methods_of(kind):
        parameters = inspect.signature(method).parameters.values()
        assert all(p.kind is not p.VAR_POSITIONAL for p in parameters), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_have_signatures(function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def test_signatures_read_like_python() -> None:
    forward = inspect.signature(engine.LlamaForCausalLM.forward)
    assert list(forward.parameters) == ["self", "input_ids", "cache", "logits_to_keep"]
    assert forward.parameters["logits_to_keep"].default == 0
    call_hook = inspect.signature(HookRegistry.call_hook)
    assert list(call_hook.parameters) == ["self", "name", "tensor", "layer_idx"]
    assert call_hook.parameters["layer_idx"].default == -1


def test_keyword_arguments_reach_the_core() -> None:
    assert engine.glob_match(name="layer3_mlp", pattern="layer#_mlp")
    with pytest.raises(TypeError, match="glob"):
        engine.glob_match("layer#_mlp", glob="layer3_mlp")  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_classes_and_their_methods_are_documented(kind: type) -> None:
    assert kind.__doc__, kind
    undocumented = [name for name, method in methods_of(kind) if not inspect.getdoc(method)]
    known = {"numel", "str", "kv_dim", "clear", "has_hooks", "names", "config", "device"}
    known |= {"is_loaded", "hook_points", "done", "size", "prompt_length", "batch_size", "copy"}
    known |= {"clone", "nbytes", "unpack", "parameter_names", "new_cache", "is_contiguous"}
    known |= {"to_json", "validate", "check", "contiguous", "prompt_logprobs"}
    assert set(undocumented) <= known


def test_constructors_that_python_must_not_call() -> None:
    for kind in (Tensor, infinilm.ModelConfig, infinilm.HookHandle, infinilm.KvCache):
        with pytest.raises(AttributeError, match="No constructor"):
            kind()


def test_nothing_holds_the_lock_where_a_hook_can_be_reached() -> None:
    """Every method of these classes releases the interpreter lock: see callbacks_under_lock in gil.hpp.

    The tests of hooks look at the counter for the methods that reach a hook today; here it is what has been counted in
    the whole process so far.
    """
    assert engine._callbacks_under_lock() == 0  # type: ignore[attr-defined]


def test_wrong_self_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        LlamaConfig.kv_dim(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        HookRegistry.names(LlamaConfig())  # type: ignore[arg-type]
