"""What users write as token ids, made into int64 arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_EXPECTED = "expected token ids: ints in a list, tuple, NumPy array or torch tensor"


class Prompts(NamedTuple):
    """Several sequences, and how they were written."""

    sequences: list[Ids]
    one: bool
    """A single sequence, not in a batch."""

    @property
    def rectangular(self) -> bool:
        """All of one length."""
        return len({len(sequence) for sequence in self.sequences}) == 1


def read_array(input_ids: Any) -> Ids:
    """One sequence, ``[tokens]``, or a rectangular batch, ``[batch, tokens]``, as a contiguous int64 array.

    Raises ``TypeError`` for anything but ints and ``ValueError`` for empty or ragged input.
    """
    prompts = read_prompts(input_ids)
    if prompts.one:
        return prompts.sequences[0]
    if not prompts.rectangular:
        lengths = sorted({len(sequence) for sequence in prompts.sequences})
        raise ValueError(
            f"the sequences of input_ids have different lengths ({lengths[0]} to {lengths[-1]}), "
            "which forward() does not take; generate() does, or call forward() on each of them"
        )
    return np.stack(prompts.sequences)


def read_prompts(input_ids: Any) -> Prompts:
    """One or several sequences, also of different lengths. Raises as ``read_array``."""
    if _is_array(input_ids):
        array = _integers(input_ids, "input_ids")
        if array.ndim not in (1, 2):
            raise ValueError(
                f"input_ids must be [tokens] or [batch, tokens], found shape {array.shape}"
            )
        if array.size == 0:
            raise ValueError(f"input_ids is empty: shape {array.shape}")
        return Prompts([array] if array.ndim == 1 else list(array), one=array.ndim == 1)
    if not _is_sequence(input_ids):
        raise TypeError(f"{_EXPECTED}; found {type(input_ids).__name__}")
    if len(input_ids) == 0:
        raise ValueError("input_ids is empty: expected at least one token id")
    nested = [_is_sequence(item) or _has_dimensions(item) for item in input_ids]
    if not any(nested):
        return Prompts([_sequence(input_ids, "input_ids")], one=True)
    if not all(nested):
        raise TypeError(f"{_EXPECTED}; found ids and sequences of ids mixed")
    rows = [_sequence(row, f"input_ids[{index}]") for index, row in enumerate(input_ids)]
    return Prompts(rows, one=False)


def is_text(prompt: Any) -> bool:
    """True for a str or a list or tuple of them."""
    if isinstance(prompt, str):
        return True
    return isinstance(prompt, list | tuple) and any(isinstance(item, str) for item in prompt)


def _sequence(values: Any, name: str) -> Ids:
    """One sequence, not empty."""
    if _is_array(values):
        array = _integers(values, name)
        if array.ndim != 1:
            raise ValueError(f"{name} must be one sequence of ids, found shape {array.shape}")
    else:
        array = np.fromiter((_integer(v, name, i) for i, v in enumerate(values)), np.int64)
    if array.size == 0:
        raise ValueError(f"{name} is empty: expected at least one token id")
    return array


def _integer(value: Any, name: str, index: int) -> int:
    if type(value) is not int:
        if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
            raise TypeError(f"{name}[{index}] must be an int, not {type(value).__name__}")
        value = value.__index__()
    if not -(2**63) <= value < 2**63:
        raise OverflowError(f"{name}[{index}] does not fit into 64 bits: {value}")
    return int(value)


def _integers(values: Any, name: str) -> Ids:
    """A contiguous int64 array; copied only if it has to be."""
    array = _as_array(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold ints, not {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise OverflowError(f"{name} has an id that does not fit into 64 bits: {array.max()}")
    return np.asarray(array, dtype=np.int64, order="C")


def _as_array(values: Any) -> NDArray[Any]:
    if hasattr(values, "__array__") or hasattr(values, "__array_interface__"):
        return np.asarray(values)
    return np.from_dlpack(values)


def _is_array(value: Any) -> bool:
    names = ("__array__", "__array_interface__", "__dlpack__")
    return not isinstance(value, np.generic) and any(hasattr(value, name) for name in names)


def _has_dimensions(value: Any) -> bool:
    return _is_array(value) and len(value.shape) > 0


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
