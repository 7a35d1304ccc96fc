"""Element types, by the names of NumPy, ml_dtypes and PyTorch."""

from __future__ import annotations

import enum


class DataType(str, enum.Enum):
    """An element type; equal to its name, so that ``tensor.dtype == "float32"`` and ``np.dtype(tensor.dtype)`` work.

    The engine computes in F32 and BF16 and reads weights stored as F32, F16 and BF16; the others are carried. Wherever
    one is expected, its name (``"bfloat16"``, ``"torch.bfloat16"``) and the dtype objects of NumPy, ml_dtypes and
    PyTorch are taken as well.
    """

    F32 = "float32"
    F16 = "float16"
    BF16 = "bfloat16"
    F64 = "float64"
    I8 = "int8"
    U8 = "uint8"
    I16 = "int16"
    U16 = "uint16"
    I32 = "int32"
    U32 = "uint32"
    I64 = "int64"
    U64 = "uint64"
    BOOL = "bool"
    C64 = "complex64"
    F8_E4M3 = "float8_e4m3fn"
    F8_E5M2 = "float8_e5m2"
    F8_E8M0 = "float8_e8m0fnu"
    F8_E4M3FNUZ = "float8_e4m3fnuz"
    F8_E5M2FNUZ = "float8_e5m2fnuz"
    F6_E2M3 = "float6_e2m3fn"
    F6_E3M2 = "float6_e3m2fn"
    F4 = "float4_e2m1fn"

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)
