"""Tensor, DataType and Device: NumPy and DLPack share memory, both ways."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from infinilm import DataType, Device, Tensor, engine, operations

NUMPY_DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
]
FOREIGN_DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]


def array_of(dtype: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray[Any, Any]:
    if dtype in FOREIGN_DTYPES:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        return np.arange(np.prod(shape)).reshape(shape).astype(getattr(ml_dtypes, dtype))
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


class Holder:
    """An array as another library would give it: with DLPack of the old or the new kind only."""

    def __init__(self, array: np.ndarray[Any, Any], versioned: bool) -> None:
        self.tensor = Tensor.from_numpy(array)
        self.versioned = versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        if not self.versioned and options:
            raise TypeError("unexpected keyword")
        return self.tensor.__dlpack__(max_version=(1, 0) if self.versioned else None)


def test_the_enum_is_the_core_s_list() -> None:
    assert {member.name: member.value for member in DataType} == engine.data_types()


def test_dtypes_are_equal_to_their_names() -> None:
    assert str(DataType.BF16) == "bfloat16"
    assert f"{DataType.F32}" == "float32"
    assert DataType.F32 == "float32"
    assert np.dtype(DataType.I64) == np.int64
    assert {DataType.F32: 1}["float32"] == 1
    assert pickle.loads(pickle.dumps(DataType.F8_E5M2)) is DataType.F8_E5M2


@pytest.mark.parametrize(
    "dtype", [DataType.F32, "float32", np.float32, np.dtype("float32"), "torch.float32"]
)
def test_a_dtype_comes_in_many_forms(dtype: Any) -> None:
    assert Tensor.empty(2, dtype).dtype is DataType.F32


@pytest.mark.parametrize("dtype", [1, None, object(), b"float32"])
def test_what_is_no_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype must be a DataType or its name"):
        Tensor.empty(2, dtype)


def test_unknown_dtypes_are_named() -> None:
    with pytest.raises(ValueError, match=r'"float33".*float32'):
        Tensor.empty(2, "float33")


def test_attributes() -> None:
    tensor = Tensor.from_numpy(np.zeros((2, 3), np.float32))
    assert tensor.shape == (2, 3)
    assert tensor.strides == (12, 4)
    assert tensor.dtype is DataType.F32
    assert tensor.device == "cpu"
    assert (tensor.ndim, tensor.numel(), tensor.itemsize, tensor.nbytes) == (2, 6, 4, 24)
    assert len(tensor) == 2
    assert not tensor.read_only
    assert repr(tensor) == str(tensor) == "Tensor(shape=(2, 3), dtype=float32, device=cpu)"
    for name in ("shape", "strides", "dtype", "device", "ndim", "nbytes"):
        with pytest.raises(AttributeError):
            setattr(tensor, name, getattr(tensor, name))


def test_no_constructor() -> None:
    with pytest.raises(AttributeError, match="No constructor"):
        Tensor()


def test_empty() -> None:
    assert Tensor.empty((2, 3)).shape == (2, 3)
    assert Tensor.empty([4], dtype="int64").dtype is DataType.I64
    assert Tensor.empty((0, 3)).numpy().shape == (0, 3)
    assert Tensor.empty(()).numpy().shape == ()
    with pytest.raises(ValueError, match="-1"):
        Tensor.empty((2, -1))
    with pytest.raises(OverflowError):
        Tensor.empty((2**40, 2**40))
    with pytest.raises(TypeError, match=r"shape\[1\] must be an int, not float"):
        Tensor.empty((2, 1.5))  # type: ignore[arg-type]


def test_a_scalar_has_no_length() -> None:
    with pytest.raises(TypeError, match="no length"):
        len(Tensor.from_numpy(np.array(3.0)))


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_numpy_round_trip_shares_memory(dtype: str) -> None:
    array = array_of(dtype)
    tensor = Tensor.from_numpy(array)
    assert str(tensor.dtype) == dtype
    for view in (tensor.numpy(), np.asarray(tensor), np.from_dlpack(tensor)):
        assert view.dtype == array.dtype
        assert address(view) == address(array)
        np.testing.assert_array_equal(view, array)
    tensor.numpy()[1, 2] = 0
    assert array[1, 2] == 0


@pytest.mark.parametrize("dtype", FOREIGN_DTYPES)
def test_ml_dtypes_round_trip_shares_memory(dtype: str) -> None:
    array = array_of(dtype)
    tensor = Tensor.from_numpy(array)
    assert str(tensor.dtype) == dtype
    for view in (tensor.numpy(), np.asarray(tensor)):
        assert view.dtype == array.dtype
        assert address(view) == address(array)
    tensor.numpy()[1, 2] = 0
    assert array[1, 2] == 0
    with pytest.raises(AttributeError):
        tensor.__array_interface__  # noqa: B018


def test_bfloat16_is_never_silently_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = Tensor.empty((2,), "bfloat16")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"infinilm\[bf16\]"):
        np.asarray(tensor)
    with pytest.raises(ImportError, match=r"infinilm\[bf16\]"):
        tensor.numpy()


def test_array_converts_and_copies() -> None:
    tensor = Tensor.from_numpy(np.ones(3, np.float32))
    wide = np.asarray(tensor, dtype=np.float64)
    assert wide.dtype == np.float64
    copied = np.array(tensor)
    assert address(copied) != address(tensor.numpy())
    assert tensor.__array__(copy=True).base is None
    with pytest.raises(ValueError, match="needs a copy"):
        tensor.__array__(np.dtype("float64"), copy=False)


def test_strided_arrays() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for view in (array.transpose(2, 0, 1), array[:, ::2, 1:3], array[::-1], array[:, :, ::-2]):
        tensor = Tensor.from_numpy(view)
        assert tensor.strides == view.strides
        np.testing.assert_array_equal(tensor.numpy(), view)
        assert address(tensor.numpy()) == address(view)
        contiguous = tensor.contiguous()
        assert contiguous.is_contiguous()
        np.testing.assert_array_equal(contiguous.numpy(), view)


def test_broadcast_and_field_views() -> None:
    row = np.broadcast_to(np.arange(3, dtype=np.float32), (4, 3))
    tensor = Tensor.from_numpy(row)
    assert tensor.read_only
    np.testing.assert_array_equal(tensor.numpy(), row)
    real = np.array([1 + 2j, 3 + 4j], np.complex64).real
    np.testing.assert_array_equal(Tensor.from_numpy(real).numpy(), [1, 3])
    odd = np.zeros(3, np.dtype([("a", "u1"), ("b", "<f4")]))["b"]
    with pytest.raises(ValueError, match="strides"):
        Tensor.from_numpy(odd)


def test_read_only_arrays_give_read_only_tensors() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = Tensor.from_numpy(array)
    assert tensor.read_only
    assert not tensor.numpy().flags.writeable
    assert not np.asarray(tensor).flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()
    again = Tensor.from_dlpack(tensor)
    assert again.read_only
    assert tensor.clone().numpy().flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.0], dtype=np.dtype("float32").newbyteorder()),
        np.array([object()]),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros(2, np.dtype([("a", "f4")])),
        np.zeros(2, np.complex128),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_other_dtypes_and_byte_orders_are_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="array"):
        Tensor.from_numpy(array)


@pytest.mark.parametrize("value", [[1.0], 3, None, "text", memoryview(b"abcd")])
def test_from_numpy_takes_arrays_only(value: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a numpy\.ndarray"):
        Tensor.from_numpy(value)


def test_memory_lives_as_long_as_anyone_holds_it() -> None:
    array = np.arange(1000.0)
    ref = weakref.ref(array)
    tensor = Tensor.from_numpy(array)
    view = tensor.numpy()
    other = np.from_dlpack(tensor)
    del array, tensor
    gc.collect()
    assert view[999] == other[999] == 999
    assert ref() is not None
    del view, other
    gc.collect()
    assert ref() is None


def test_a_view_outlives_its_tensor() -> None:
    buffers = engine.live_objects()["buffers"]
    tensor = Tensor.empty((4,))
    view = tensor.numpy()
    view[:] = 7
    del tensor
    gc.collect()
    assert view.tolist() == [7, 7, 7, 7]
    assert engine.live_objects()["buffers"] == buffers + 1
    del view
    gc.collect()
    assert engine.live_objects()["buffers"] == buffers


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_unused_capsules_do_not_leak(version: tuple[int, int] | None) -> None:
    buffers = engine.live_objects()["buffers"]
    tensor = Tensor.empty((3,))
    for _ in range(100):
        capsule = tensor.__dlpack__(max_version=version)
        name = '"dltensor"' if version is None or version[0] < 1 else '"dltensor_versioned"'
        assert name in repr(capsule)
    del tensor, capsule
    assert engine.live_objects()["buffers"] == buffers


@pytest.mark.parametrize("versioned", [False, True])
def test_capsules_come_back(versioned: bool) -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    ref = weakref.ref(array)
    tensor = Tensor.from_dlpack(Holder(array, versioned))
    assert address(tensor.numpy()) == address(array)
    assert (tensor.shape, tensor.dtype) == ((2, 3), DataType.I32)
    del array
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    del tensor
    gc.collect()
    assert ref() is None


def test_a_capsule_is_taken_once() -> None:
    capsule = Tensor.empty((2,)).__dlpack__(max_version=(1, 0))
    assert Tensor.from_dlpack(capsule).shape == (2,)
    with pytest.raises(ValueError, match="capsule"):
        Tensor.from_dlpack(capsule)


def test_from_dlpack_takes_numpy_arrays() -> None:
    array = np.arange(3.0)
    assert address(Tensor.from_dlpack(array).numpy()) == address(array)
    with pytest.raises(TypeError, match="__dlpack__"):
        Tensor.from_dlpack([1.0])


def test_dlpack_of_every_dtype() -> None:
    for dtype in DataType:
        try:
            tensor = Tensor.empty((2,), dtype)
        except ValueError:  # less than a byte wide
            assert dtype in ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
            continue
        assert Tensor.from_dlpack(tensor).dtype is dtype


def test_numpy_s_view_by_dlpack_is_writable() -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("NumPy asks for DLPack 1.0 from 2.1 on")
    tensor = Tensor.from_numpy(np.zeros(2, np.float32))
    view = np.from_dlpack(tensor)
    view[0] = 5
    assert tensor.tolist() == [5, 0]


def test_dlpack_arguments() -> None:
    tensor = Tensor.from_numpy(np.arange(3, dtype=np.float32))
    assert tensor.__dlpack_device__() == (1, 0)
    tensor.__dlpack__(stream=None, dl_device=(1, 0), copy=False)
    with pytest.raises(BufferError, match="device"):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(ValueError, match="stream"):
        tensor.__dlpack__(stream=7)
    copied = Tensor.from_dlpack(tensor.__dlpack__(max_version=(1, 0), copy=True))
    copied.numpy()[0] = 9
    assert tensor.tolist() == [0, 1, 2]


def test_negative_strides_are_refused_by_dlpack() -> None:
    tensor = Tensor.from_numpy(np.arange(3.0)[::-1])
    for version in (None, (1, 0)):
        with pytest.raises(BufferError, match="negative strides"):
            tensor.__dlpack__(max_version=version)
    assert np.from_dlpack(tensor.contiguous()).tolist() == [2, 1, 0]


def test_empty_and_scalar_tensors_travel() -> None:
    for shape in ((0,), (0, 3), (3, 0), ()):
        array = np.zeros(shape, np.float32)
        tensor = Tensor.from_numpy(array)
        assert tensor.shape == shape
        assert tensor.numpy().shape == np.from_dlpack(tensor).shape == shape


def test_torch_shares_memory() -> None:
    torch = pytest.importorskip("torch")
    source = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    tensor = Tensor.from_dlpack(source)
    assert tensor.dtype is DataType.BF16
    back = torch.from_dlpack(tensor)
    back[0, 0] = 42
    assert source[0, 0] == 42
    strided = Tensor.from_dlpack(source.t())
    assert strided.shape == (3, 2)
    assert torch.equal(torch.from_dlpack(strided), source.t())


def test_reshape() -> None:
    tensor = Tensor.from_numpy(np.arange(6, dtype=np.float32))
    assert tensor.reshape((2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert address(tensor.reshape((3, 2)).numpy()) == address(tensor.numpy())
    with pytest.raises(ValueError, match=r"6 elements.*\(4,\)"):
        tensor.reshape((4,))


def test_copies() -> None:
    tensor = Tensor.from_numpy(np.arange(3, dtype=np.float32))
    for other in (tensor.clone(), copy.deepcopy(tensor), pickle.loads(pickle.dumps(tensor))):
        assert other.tolist() == tensor.tolist()
        assert address(other.numpy()) != address(tensor.numpy())
    assert Tensor.from_numpy(np.array([[2.5]])).item() == 2.5


def test_arrays_are_taken_for_tensors() -> None:
    array = np.ones((2, 3), np.float32)
    assert operations.add(array, array).tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(TypeError, match="y must be a Tensor or an array, not list"):
        operations.add(array, [[1.0]])  # type: ignore[arg-type]


def test_devices() -> None:
    cpu, cuda = Device("cpu"), Device("cuda:1")
    assert (cpu.type, cpu.index, str(cpu), repr(cpu)) == ("cpu", 0, "cpu", "Device('cpu')")
    assert (cuda.type, cuda.index, str(cuda)) == ("cuda", 1, "cuda:1")
    assert Device("cuda") == Device("cuda:0") == "cuda"
    assert cpu == "cpu"
    assert cpu != "no device"
    assert cpu != 1
    assert len({Device("cpu"), Device("cpu"), cuda}) == 2
    assert pickle.loads(pickle.dumps(cuda)) == cuda
    for text in ("", "gpu", "cuda:", "cuda:x", "cuda:-1"):
        with pytest.raises(ValueError, match="device"):
            Device(text)
    with pytest.raises(TypeError, match="text must be a str, not int"):
        Device(0)  # type: ignore[arg-type]


def test_to_another_device() -> None:
    tensor = Tensor.from_numpy(np.zeros(2, np.float32))
    assert address(tensor.to("cpu").numpy()) == address(tensor.numpy())
    assert tensor.to(Device("cpu")).device == "cpu"
    assert address(tensor.to("cpu", non_blocking=True).numpy()) == address(tensor.numpy())
    with pytest.raises(RuntimeError, match="cuda"):
        tensor.to("cuda")
    with pytest.raises(TypeError, match="device must be a Device or its name, not int"):
        tensor.to(0)  # type: ignore[arg-type]
