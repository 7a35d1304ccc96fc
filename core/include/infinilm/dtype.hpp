// Element types: NumPy's and ml_dtypes' names, safetensors' codes, DLPack's widths.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace infinilm {

// Every dtype that a safetensors file may carry. The engine computes in F32 and BF16 and reads weights
// stored as F32, F16 and BF16; the others are carried, so that a tensor nobody needs never blocks a file.
enum class DataType : int {
  F32,
  F16,
  BF16,
  F64,
  I8,
  U8,
  I16,
  U16,
  I32,
  U32,
  I64,
  U64,
  BOOL,
  C64,
  F8_E4M3,
  F8_E5M2,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  F6_E2M3,
  F6_E3M2,
  F4,
};

inline constexpr int kDataTypeCount = static_cast<int>(DataType::F4) + 1;

// Width of one element in bits (4 and 6 for the packed sub-byte floats).
std::size_t bits_of(DataType dtype) noexcept;

// Width of one element in bytes. Throws ValueError for sub-byte types.
std::size_t size_of(DataType dtype);

// NumPy's or ml_dtypes' name: "float32", "bfloat16", "int64", "bool", "float8_e4m3fn", …
std::string_view name_of(DataType dtype) noexcept;

// The enumerator's own name, which is also the code in a safetensors header: "F32", "BF16", …
std::string_view code_of(DataType dtype) noexcept;

// The inverse of `name_of`, also with torch's prefix ("torch.bfloat16"); nothing for an unknown name.
std::optional<DataType> dtype_from_name(std::string_view name) noexcept;

// The inverse of `code_of`; nothing for an unknown code.
std::optional<DataType> dtype_from_code(std::string_view code) noexcept;

// Like `dtype_from_name`, but throws ValueError that lists the names.
DataType parse_dtype(std::string_view name);

}  // namespace infinilm
