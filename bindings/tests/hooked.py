"""Running a model that hooks look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from infinilm import Tensor, engine

IDS = np.array([3, 1, 4, 1, 5], np.int64)
BATCH = np.array([[3, 1, 4], [1, 5, 9]], np.int64)


def run(model: engine.LlamaForCausalLM, ids: Any = IDS, **options: Any) -> np.ndarray[Any, Any]:
    return np.array(model.forward(ids, **options).numpy())


def names_of(model: engine.LlamaForCausalLM) -> list[str]:
    return [point.name for point in model.hook_points()]


def edit(function: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[str, Tensor, int], None]:
    """A callback that writes ``function(values)`` into the tensor."""

    def callback(name: str, tensor: Tensor, layer_idx: int) -> None:
        values = tensor.numpy()
        values[...] = function(values)

    return callback
