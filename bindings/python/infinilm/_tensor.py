"""What Python adds to the engine's Tensor and Device: arrays in and out without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsInt

import numpy as np

import infinilm._engine as _engine

if TYPE_CHECKING:
    from infinilm.engine import Device, Tensor

_TYPE_STRINGS = {
    "bool": "|b1",
    "int8": "|i1",
    "uint8": "|u1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "uint64": "<u8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
}
_NAMES = {typestr: name for name, typestr in _TYPE_STRINGS.items()}
_DLPACK_DEVICES = {"cpu": 1, "cuda": 2}
_DLPACK_CUDA = (2, 13)  # memory of a device, and memory that CUDA moves
_NO_STREAM = 0  # the consumer wants no order


def _consumer_stream(stream: Any) -> int:
    """The stream that a consumer of CUDA memory names, as DLPack numbers them."""
    if stream is None:
        return 1
    if isinstance(stream, bool) or not hasattr(stream, "__index__"):
        raise TypeError(f"stream: expected None or an int, not {type(stream).__name__}")
    number = int(stream)
    if number == -1:
        return _NO_STREAM
    if number < 1:
        raise ValueError(f"stream: expected None, -1, 1, 2 or a stream's address, found {number}")
    return number


class _Raw:
    """Memory under a dtype that NumPy knows; NumPy keeps it, and with it the tensor, as the array's base."""

    def __init__(self, tensor: Tensor, typestr: str) -> None:
        self.tensor = tensor
        self.__array_interface__ = _engine._tensor_interface(tensor, typestr)


def _foreign_dtype(name: str) -> np.dtype[Any]:
    """A dtype of ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(
            f"NumPy has no {name} of its own: pip install 'infinilm[bf16]' (or ml_dtypes)"
        ) from error
    try:
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    except AttributeError:
        raise ImportError(f"the installed ml_dtypes has no {name}: a newer one is needed") from None
    return dtype


class TensorMethods:
    """The Python side of Tensor.

    A hook that wants a CUDA device's values on the CPU need not wait for them: ``to`` with ``non_blocking`` gives
    those of the call, whatever becomes of the tensor, and whoever first looks at them waits. On the CPU it gives the
    tensor itself.

    >>> import infinilm
    >>> llm = infinilm.load(infinilm.sample_model())  # or with device="cuda"
    >>> registry = infinilm.HookRegistry()
    >>> llm.model.set_hook_registry(registry)
    >>> captured = []
    >>> def capture(name, tensor, layer):
    ...     captured.append(tensor.to("cpu", non_blocking=True))
    >>> handle = registry.register_hook("layer#_output", capture)
    >>> text = llm.generate("ROMEO:", max_new_tokens=4)
    >>> len(captured) == handle.calls and bool(np.isfinite(captured[-1].numpy()).all())
    True
    """

    @classmethod
    def empty(cls, shape: int | tuple[int, ...], dtype: Any = "float32") -> Tensor:
        """Return new memory on the CPU, not initialised."""
        made: Tensor = cls._empty(shape, dtype)  # type: ignore[attr-defined]
        return made

    @classmethod
    def from_numpy(cls, array: np.ndarray[Any, Any]) -> Tensor:
        """Return a tensor that shares the array's memory; read-only if the array is.

        TypeError for what is no array, a dtype that no tensor has or another byte order than this machine's.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(f"expected a numpy.ndarray, not {type(array).__name__}")
        return _borrow(array, "the array")

    @classmethod
    def from_dlpack(cls, source: Any) -> Tensor:
        """Return a tensor that shares the memory of an object with ``__dlpack__`` or of a DLPack capsule."""
        return _from_dlpack(source)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return an array that shares the memory; for a tensor on another device a read-only copy.

        bfloat16 and the float8 types come as ml_dtypes' dtypes; ImportError where that is not installed.
        """
        tensor: Tensor = self  # type: ignore[assignment]
        try:
            return np.asarray(self)
        except TypeError:
            if tensor.device == "cpu":
                raise
        array = np.asarray(tensor.to("cpu"))
        array.flags.writeable = False
        return array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        tensor: Tensor = self  # type: ignore[assignment]
        typestr = _TYPE_STRINGS.get(tensor.dtype)
        interface: dict[str, Any] | None = None
        if typestr is not None:
            interface = _engine._tensor_interface(tensor, typestr)
        if interface is None:
            raise AttributeError("this tensor has no __array_interface__: its __array__ tells more")
        return interface

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        tensor: Tensor = self  # type: ignore[assignment]
        if tensor.device.type != "cpu":
            raise TypeError(
                f"NumPy cannot share memory of {tensor.device}: use .numpy() or .to('cpu')"
            )
        name = str(tensor.dtype)
        if name in _TYPE_STRINGS:
            array = np.asarray(_Raw(tensor, _TYPE_STRINGS[name]))
        else:
            # Of the same width, under a dtype that travels by the array interface.
            raw = np.asarray(_Raw(tensor, _TYPE_STRINGS[f"uint{8 * tensor.itemsize}"]))
            array = raw.view(_foreign_dtype(name))
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"converting {name} to {np.dtype(dtype)} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack_device__(self) -> tuple[int, int]:
        tensor: Tensor = self  # type: ignore[assignment]
        return _DLPACK_DEVICES[tensor.device.type], tensor.device.index

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[SupportsInt, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        tensor: Tensor = self  # type: ignore[assignment]
        here = self.__dlpack_device__()
        if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != here:
            if int(dl_device[0]) != 1 or copy is False:
                raise BufferError(
                    f"the tensor is on DLPack device {here}, not on {tuple(dl_device)}"
                )
            return tensor.to("cpu").__dlpack__(max_version=max_version)
        if here[0] == 1 and stream not in (None, -1):
            raise ValueError(f"a tensor on the cpu has no stream, found stream={stream!r}")
        consumer = _NO_STREAM if here[0] == 1 else _consumer_stream(stream)
        versioned = max_version is not None and max_version[0] >= 1
        return _engine._tensor_to_dlpack(tensor, versioned, bool(copy), consumer)

    def tolist(self) -> Any:
        """Return the elements as (nested) Python lists."""
        return self.numpy().tolist()

    def item(self) -> Any:
        """Return the only element as a Python number; ValueError if there is not exactly one."""
        return self.numpy().item()

    def __len__(self) -> int:
        tensor: Tensor = self  # type: ignore[assignment]
        if not tensor.shape:
            raise TypeError("a tensor without dimensions has no length")
        return tensor.shape[0]

    def _represent(self) -> str:
        return str(self)

    def __copy__(self) -> TensorMethods:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        tensor: Tensor = self  # type: ignore[assignment]
        return tensor.clone()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_numpy, (np.array(self.numpy()),)


class DeviceMethods:
    """The Python side of Device."""

    def __eq__(self, other: object) -> bool:
        device: Device = self  # type: ignore[assignment]
        if isinstance(other, (DeviceMethods, str)):
            try:
                return bool(device._equals(other))  # type: ignore[attr-defined]
            except ValueError:  # a text that names no device
                return False
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def _represent(self) -> str:
        return f"Device({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


def _unusual_dtype(array: np.ndarray[Any, Any], field: str) -> str:
    """The name of ml_dtypes' dtypes; TypeError for what no tensor can have."""
    if not array.dtype.isnative:
        raise TypeError(f"{field} must have the machine's byte order, found {array.dtype.str!r}")
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"{field} must have elements of a plain dtype, found {array.dtype}")
    return str(array.dtype.name)


def _borrow(array: np.ndarray[Any, Any], field: str) -> Tensor:
    interface = array.__array_interface__
    address, read_only = interface["data"]
    dtype = _NAMES.get(interface["typestr"])
    if dtype is None:
        dtype = _unusual_dtype(array, field)
    try:
        tensor: Tensor = _engine._borrow_tensor(
            array, address, dtype, array.shape, array.strides, read_only
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{field}, {array.dtype} {array.shape}: {error}") from None
    return tensor


def _order_with(source: Any) -> dict[str, int]:
    """The stream that the engine will use the memory of a producer on, as an argument of its __dlpack__."""
    kind, index = source.__dlpack_device__()
    if int(kind) not in _DLPACK_CUDA:
        return {}
    return {"stream": _engine._stream_of(f"cuda:{index}") or -1}


def _from_dlpack(source: Any) -> Tensor:
    if hasattr(source, "__dlpack__"):
        order = _order_with(source)
        try:
            capsule = source.__dlpack__(max_version=(1, 0), **order)
        except TypeError:  # written before DLPack 1.0
            capsule = source.__dlpack__(**order)
    elif type(source).__name__ == "PyCapsule":
        capsule = source
    else:
        raise TypeError(
            f"expected an object with __dlpack__ or a capsule, not {type(source).__name__}"
        )
    tensor: Tensor = _engine._tensor_from_dlpack(capsule)
    return tensor


def tensor_from(source: Any, field: str) -> Tensor:
    """Return a tensor on the memory of whatever the engine takes for one; called by the typemaps."""
    if isinstance(source, (np.ndarray, np.generic)):
        return _borrow(np.asarray(source), field)
    if hasattr(source, "__dlpack__"):
        try:
            return _from_dlpack(source)
        except (BufferError, RuntimeError) as error:
            raise type(error)(f"{field}: {error}") from error
    if hasattr(source, "__array_interface__"):
        return _borrow(np.asarray(source), field)
    raise TypeError(f"{field} must be a Tensor or an array, not {type(source).__name__}")
