// What the readers of the layouts share.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quant/import.hpp"

namespace infinilm {

static_assert(std::endian::native == std::endian::little, "words of codes are read as bytes");

// The tensors of one module that has passed the check of names, shapes and dtypes, by the last part of their names.
struct ImportedModule {
  const QuantizationScheme& scheme;
  std::string name;
  std::int64_t outputs, inputs;
  QuantFormat format;
  std::map<std::string, Tensor> tensors;  // contiguous, any alignment

  std::int64_t groups() const { return group_count(format, inputs); }
  const Tensor& at(const std::string& part) const { return tensors.at(part); }
  std::string name_of(const std::string& part) const { return name + "." + part; }
};

std::unique_ptr<QuantizedRows> open_compressed(ImportedModule module);
std::unique_ptr<QuantizedRows> open_gptq(ImportedModule module);
std::unique_ptr<QuantizedRows> open_awq(ImportedModule module);

// 32-bit words of codes or zeros.
inline std::uint32_t word_at(const Tensor& words, std::int64_t index) {
  std::uint32_t word;
  std::memcpy(&word, words.data() + 4 * index, sizeof word);
  return word;
}

// Value `index` of a row of words that begins with word `first`, lowest bits first.
inline std::uint8_t code_at(const Tensor& words, std::int64_t first, std::int64_t index, int bits) {
  const std::int64_t bit = index * bits;
  return static_cast<std::uint8_t>(word_at(words, first + bit / 32) >> bit % 32 &
                                   ((1u << bits) - 1));
}

// The eight codes of a word in eight bytes, lowest first.
inline std::uint64_t spread(std::uint32_t word) {
  std::uint64_t x = word;
  x = (x | x << 16) & 0x0000FFFF0000FFFFu;
  x = (x | x << 8) & 0x00FF00FF00FF00FFu;
  return (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
}

// Of F32, F16 or BF16, as a float16 has it.
float scale_at(const Tensor& scales, std::int64_t index);

// ValueError for one that is not finite, or is not as a float16.
void check_scales(const ImportedModule& module, const std::string& part);

// Which input each column of the kept matrix is, sorted by g_idx; empty if they are sorted already. ValueError for
// a group out of range, or one that is not full.
std::vector<std::int32_t> order_of(const ImportedModule& module, const std::string& part);

}  // namespace infinilm
