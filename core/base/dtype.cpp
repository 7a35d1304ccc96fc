#include "infinilm/dtype.hpp"

#include <array>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

struct Row {
  std::string_view code;
  std::string_view name;
  std::size_t bits;
};

constexpr std::array<Row, kDataTypeCount> kRows = {{
    {"F32", "float32", 32},
    {"F16", "float16", 16},
    {"BF16", "bfloat16", 16},
    {"F64", "float64", 64},
    {"I8", "int8", 8},
    {"U8", "uint8", 8},
    {"I16", "int16", 16},
    {"U16", "uint16", 16},
    {"I32", "int32", 32},
    {"U32", "uint32", 32},
    {"I64", "int64", 64},
    {"U64", "uint64", 64},
    {"BOOL", "bool", 8},
    {"C64", "complex64", 64},
    {"F8_E4M3", "float8_e4m3fn", 8},
    {"F8_E5M2", "float8_e5m2", 8},
    {"F8_E8M0", "float8_e8m0fnu", 8},
    {"F8_E4M3FNUZ", "float8_e4m3fnuz", 8},
    {"F8_E5M2FNUZ", "float8_e5m2fnuz", 8},
    {"F6_E2M3", "float6_e2m3fn", 6},
    {"F6_E3M2", "float6_e3m2fn", 6},
    {"F4", "float4_e2m1fn", 4},
}};

const Row& row(DataType dtype) noexcept { return kRows[static_cast<std::size_t>(dtype)]; }

std::optional<DataType> find(std::string_view text, std::string_view Row::* column) noexcept {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].*column == text) return static_cast<DataType>(i);
  }
  return std::nullopt;
}

}  // namespace

std::size_t bits_of(DataType dtype) noexcept { return row(dtype).bits; }

std::size_t size_of(DataType dtype) {
  check(bits_of(dtype) % 8 == 0, "elements of ", name_of(dtype), " are ", bits_of(dtype),
        " bits wide and have no size in bytes");
  return bits_of(dtype) / 8;
}

std::string_view name_of(DataType dtype) noexcept { return row(dtype).name; }

std::string_view code_of(DataType dtype) noexcept { return row(dtype).code; }

std::optional<DataType> dtype_from_name(std::string_view name) noexcept {
  constexpr std::string_view kTorch = "torch.";
  if (name.starts_with(kTorch)) name.remove_prefix(kTorch.size());
  return find(name, &Row::name);
}

std::optional<DataType> dtype_from_code(std::string_view code) noexcept {
  return find(code, &Row::code);
}

DataType parse_dtype(std::string_view name) {
  if (const auto dtype = dtype_from_name(name)) return *dtype;
  std::string names;
  for (const Row& r : kRows) names.append(names.empty() ? "" : ", ").append(r.name);
  throw ValueError(concat("unknown dtype ", quoted(name), "; expected one of ", names));
}

}  // namespace infinilm
