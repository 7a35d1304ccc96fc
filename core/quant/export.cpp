#include "quant/export.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.hpp"
#include "infinilm/error.hpp"
#include "quant/quant_format.hpp"

namespace infinilm {
namespace {

static_assert(std::endian::native == std::endian::little, "words of codes are written as bytes");

// Codes are packed and written in pieces of about so many bytes.
constexpr std::int64_t kPiece = std::int64_t{1} << 22;

// Lowest bits first; `to` is zero.
void pack_row(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* to) {
  if (bits == 8) {
    std::memcpy(to, codes, static_cast<std::size_t>(count));
    return;
  }
  for (std::int64_t k = 0; k < count; ++k) {
    const int shifted = codes[k] << (k % 2 * 4);
    to[k / 2] = static_cast<std::uint8_t>(to[k / 2] | shifted);
  }
}

class Exporter {
 public:
  Exporter(SafetensorsWriter& file, const std::string& module, const QuantizedMatrix& matrix)
      : file_(file),
        module_(module),
        m_(matrix),
        outputs_(m_.codes.shape()[0]),
        inputs_(m_.codes.shape()[1]),
        groups_(m_.scales.shape()[1]) {}

  void write() {
    write_scales();
    write_codes();
    const std::int64_t shape[] = {outputs_, inputs_};
    file_.write(name("weight_shape"), 0, shape, sizeof shape);
    if (m_.format.zeros) write_zeros();
    if (!m_.input_order.empty()) write_groups();
  }

 private:
  std::string name(const char* part) const { return module_ + "." + part; }

  void write_scales() {
    const auto* scales = reinterpret_cast<const float*>(m_.scales.data());
    std::vector<std::uint16_t> half(static_cast<std::size_t>(outputs_ * groups_));
    for (std::size_t i = 0; i < half.size(); ++i) {
      check(std::isfinite(scales[i]), quoted(module_), ": expected finite scales, found ",
            scales[i], " in place ", i,
            "; the weights that it was rounded from are not finite, or too large for int",
            m_.format.bits);
      half[i] = to_f16(scales[i]);
    }
    file_.write(name("weight_scale"), 0, half.data(), half.size() * sizeof half[0]);
  }

  void write_codes() {
    const auto* codes = reinterpret_cast<const std::uint8_t*>(m_.codes.data());
    const std::int64_t row_bytes = packed_words(inputs_, m_.format.bits) * 4;
    const std::int64_t rows = std::max<std::int64_t>(1, kPiece / row_bytes);
    std::vector<std::uint8_t> piece, natural(static_cast<std::size_t>(inputs_));
    for (std::int64_t begin = 0; begin < outputs_; begin += rows) {
      const std::int64_t end = std::min(begin + rows, outputs_);
      piece.assign(static_cast<std::size_t>((end - begin) * row_bytes), 0);
      for (std::int64_t n = begin; n < end; ++n) {
        pack_row(in_order_of_inputs(codes + n * inputs_, natural), inputs_, m_.format.bits,
                 piece.data() + (n - begin) * row_bytes);
      }
      file_.write(name("weight_packed"), static_cast<std::size_t>(begin * row_bytes), piece.data(),
                  piece.size());
    }
  }

  const std::uint8_t* in_order_of_inputs(const std::uint8_t* codes,
                                         std::vector<std::uint8_t>& natural) const {
    if (m_.input_order.empty()) return codes;
    for (std::size_t k = 0; k < natural.size(); ++k)
      natural[static_cast<std::size_t>(m_.input_order[k])] = codes[k];
    return natural.data();
  }

  // Down the outputs.
  void write_zeros() {
    const auto* zeros = reinterpret_cast<const std::uint8_t*>(m_.zeros.data());
    const int bits = m_.format.bits;
    std::vector<std::uint32_t> packed(
        static_cast<std::size_t>(packed_words(outputs_, bits) * groups_));
    for (std::int64_t n = 0; n < outputs_; ++n) {
      for (std::int64_t g = 0; g < groups_; ++g) {
        packed[static_cast<std::size_t>(n * bits / 32 * groups_ + g)] |=
            std::uint32_t{zeros[n * groups_ + g]} << (n * bits % 32);
      }
    }
    file_.write(name("weight_zero_point"), 0, packed.data(), packed.size() * sizeof packed[0]);
  }

  void write_groups() {
    std::vector<std::int32_t> g_idx(static_cast<std::size_t>(inputs_));
    for (std::int64_t k = 0; k < inputs_; ++k) {
      const std::int32_t input = m_.input_order[static_cast<std::size_t>(k)];
      g_idx[static_cast<std::size_t>(input)] = static_cast<std::int32_t>(k / m_.format.group);
    }
    file_.write(name("weight_g_idx"), 0, g_idx.data(), g_idx.size() * sizeof g_idx[0]);
  }

  SafetensorsWriter& file_;
  const std::string& module_;
  const QuantizedMatrix& m_;
  std::int64_t outputs_, inputs_, groups_;
};

}  // namespace

std::vector<TensorEntry> exported_tensors(const std::string& module, std::int64_t outputs,
                                          std::int64_t inputs, const QuantFormat& format,
                                          bool ordered) {
  const std::int64_t groups = group_count(format, inputs);
  std::vector<TensorEntry> list = {
      {module + ".weight_packed", DataType::I32, {outputs, packed_words(inputs, format.bits)}},
      {module + ".weight_scale", DataType::F16, {outputs, groups}},
      {module + ".weight_shape", DataType::I64, {2}},
  };
  if (format.zeros) {
    list.push_back({module + ".weight_zero_point",
                    DataType::I32,
                    {packed_words(outputs, format.bits), groups}});
  }
  if (ordered) list.push_back({module + ".weight_g_idx", DataType::I32, {inputs}});
  return list;
}

void export_module(SafetensorsWriter& file, const std::string& module,
                   const QuantizedMatrix& matrix) {
  Exporter(file, module, matrix).write();
}

}  // namespace infinilm
