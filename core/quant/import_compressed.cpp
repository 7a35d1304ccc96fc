// The tensors of compressed-tensors: a row of codes after the other, each code a signed value + 2^(bits - 1); `pack-quantized` packs
// them in words of 32 bits, lowest first (zeros down the outputs), `int-quantized` keeps signed bytes.
#include <algorithm>
#include <cstring>
#include <utility>

#include "infinilm/error.hpp"
#include "quant/import_module.hpp"

namespace infinilm {
namespace {

class CompressedRows final : public QuantizedRows {
 public:
  CompressedRows(ImportedModule module, std::vector<std::int32_t> order)
      : outputs_(module.outputs),
        inputs_(module.inputs),
        format_(module.format),
        packed_(module.scheme.layout == QuantizationScheme::Layout::PackQuantized),
        codes_(module.at(packed_ ? "weight_packed" : "weight")),
        scales_(module.at("weight_scale")),
        order_(std::move(order)) {
    if (format_.zeros) zeros_ = module.at("weight_zero_point");
  }

  std::int64_t outputs() const override { return outputs_; }
  std::int64_t inputs() const override { return inputs_; }
  const QuantFormat& format() const override { return format_; }
  std::span<const std::int32_t> input_order() const override { return order_; }

  void read(std::int64_t row, std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t> zeros) const noexcept override {
    if (order_.empty()) {
      read_codes(row, codes.data());
    } else {
      thread_local std::vector<std::uint8_t> natural;
      natural.resize(codes.size());
      read_codes(row, natural.data());
      for (std::size_t k = 0; k < codes.size(); ++k)
        codes[k] = natural[static_cast<std::size_t>(order_[k])];
    }
    const auto groups = static_cast<std::int64_t>(scales.size());
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<std::size_t>(g);
      scales[at] = scale_at(scales_, row * groups + g);
      if (format_.zeros) zeros[at] = zero_at(row, g, groups);
    }
  }

 private:
  static constexpr unsigned kSignBit = 0x80;

  void read_codes(std::int64_t row, std::uint8_t* out) const {
    if (!packed_) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes_.data()) + row * inputs_;
      for (std::int64_t k = 0; k < inputs_; ++k)
        out[k] = static_cast<std::uint8_t>(bytes[k] ^ kSignBit);
      return;
    }
    const std::int64_t words = codes_.shape()[1];
    if (format_.bits == 8) {
      std::memcpy(out, codes_.data() + row * words * 4, static_cast<std::size_t>(inputs_));
      return;
    }
    for (std::int64_t w = 0; w < words; ++w) {
      const std::uint64_t eight = spread(word_at(codes_, row * words + w));
      std::memcpy(out + w * 8, &eight,
                  static_cast<std::size_t>(std::min<std::int64_t>(8, inputs_ - w * 8)));
    }
  }

  std::uint8_t zero_at(std::int64_t row, std::int64_t g, std::int64_t groups) const {
    if (!packed_) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(zeros_.data());
      return static_cast<std::uint8_t>(bytes[row * groups + g] ^ kSignBit);
    }
    const std::int64_t bit = row * format_.bits;
    const std::uint32_t word = word_at(zeros_, bit / 32 * groups + g);
    return static_cast<std::uint8_t>(word >> bit % 32 & ((1u << format_.bits) - 1));
  }

  std::int64_t outputs_, inputs_;
  QuantFormat format_;
  bool packed_;
  Tensor codes_, scales_, zeros_;
  std::vector<std::int32_t> order_;
};

void check_shape(const ImportedModule& module) {
  if (!module.tensors.contains("weight_shape")) return;
  const Tensor& shape = module.at("weight_shape");
  const bool wide = shape.dtype() == DataType::I64;
  const std::int64_t expected[] = {module.outputs, module.inputs};
  for (std::int64_t i = 0; i < 2; ++i) {
    const std::uint64_t low = word_at(shape, wide ? 2 * i : i);
    const std::uint64_t high = wide ? word_at(shape, 2 * i + 1) : 0;
    const auto found = static_cast<std::int64_t>(high << 32 | low);
    check(found == expected[i], quoted(module.name_of("weight_shape")), ": expected ",
          str_of({module.outputs, module.inputs}), ", found ", found, " in place ", i);
  }
}

// The library writes -1 everywhere for groups that nobody has assigned.
bool is_assigned(const Tensor& g_idx) {
  for (std::int64_t k = 0; k < g_idx.numel(); ++k) {
    if (word_at(g_idx, k) != 0xFFFFFFFFu) return true;
  }
  return false;
}

}  // namespace

std::unique_ptr<QuantizedRows> open_compressed(ImportedModule module) {
  check_shape(module);
  check_scales(module, "weight_scale");
  std::vector<std::int32_t> order;
  const std::string g_idx = "weight_g_idx";
  if (module.tensors.contains(g_idx) && (module.scheme.ordered || is_assigned(module.at(g_idx)))) {
    order = order_of(module, g_idx);
  }
  return std::make_unique<CompressedRows>(std::move(module), std::move(order));
}

}  // namespace infinilm
