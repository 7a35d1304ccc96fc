#include "cpu/weight.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/memory.hpp"
#include "cpu/pool.hpp"
#include "cpu/quantised_panel.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cpu {
namespace {

Format format_of(DataType dtype) {
  switch (dtype) {
    case DataType::F32:
      return Format::F32;
    case DataType::F16:
      return Format::F16;
    case DataType::BF16:
      return Format::Bf16;
    default:
      throw ValueError(
          concat("expected a weight of float32, float16 or bfloat16, found ", name_of(dtype)));
  }
}

std::size_t element_size(Format format) { return format == Format::F32 ? 4 : 2; }

// Of a matrix that is not quantised.
std::size_t panel_bytes(const Kernels& kernels, Format format, std::int64_t inputs) {
  const std::int64_t depth =
      format == Format::Bf16 ? padded_depth(inputs, kernels.depth_step) : inputs;
  return static_cast<std::size_t>(depth * kernels.nr) * element_size(format);
}

std::size_t panel_bytes(const Kernels& kernels, const QuantFormat& quant, std::int64_t inputs) {
  return static_cast<std::size_t>(quantised_panel_bytes(quant, inputs, kernels.nr));
}

std::int64_t panel_count(const Kernels& kernels, std::int64_t outputs) {
  return (outputs + kernels.nr - 1) / kernels.nr;
}

// Panels are packed in runs, so that what is packed can be let go and reported before a large matrix is through.
std::int64_t panels_in_run(std::size_t panel_bytes) {
  constexpr std::size_t kRunBytes = std::size_t{1} << 23;
  return std::max<std::int64_t>(
      static_cast<std::int64_t>(kRunBytes / std::max<std::size_t>(panel_bytes, 1)),
      4 * pool_threads());
}

// Room for one row on its way in or out.
struct RowBuffer {
  RowBuffer(const QuantFormat& format, std::int64_t inputs)
      : codes(static_cast<std::size_t>(inputs)),
        scales(static_cast<std::size_t>(group_count(format, inputs))),
        zeros(format.zeros ? scales.size() : 0) {}
  QuantisedRow row() { return {codes, scales, zeros}; }

  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros;
};

}  // namespace

PackedWeight::PackedWeight(const Kernels& kernels, std::span<const Tensor> parts, DataType compute,
                           const PartPacked& packed)
    : kernels_(kernels), inputs_(parts.front().shape()[1]), round_bf16_(compute == DataType::BF16) {
  format_ = round_bf16_ ? Format::Bf16 : format_of(parts.front().dtype());
  panel_bytes_ = panel_bytes(kernels, format_, inputs_);
  std::vector<std::int64_t> outputs;
  for (const Tensor& source : parts) outputs.push_back(source.shape()[0]);
  lay_out(outputs);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t panel = static_cast<std::size_t>(kernels.nr * inputs_) * parts[i].itemsize();
    const std::int64_t run = panels_in_run(panel);
    for (std::int64_t begin = 0; begin < panels(i); begin += run) {
      const std::int64_t end = std::min(begin + run, panels(i));
      pack(parts[i], parts_[i], begin, end);
      if (packed) {
        packed(i, static_cast<std::size_t>(begin) * panel,
               std::min(static_cast<std::size_t>(end) * panel, parts[i].nbytes()));
      }
    }
  }
}

PackedWeight::PackedWeight(const Kernels& kernels, std::span<const QuantizedRows* const> parts,
                           DataType compute, bool int8_activations, const RowsPacked& packed)
    : kernels_(kernels),
      inputs_(parts.front()->inputs()),
      format_(Format::Quantised),
      quant_(parts.front()->format()),
      round_bf16_(compute == DataType::BF16),
      int8_activations_(int8_activations) {
  const auto order = common_order(parts);
  input_order_.assign(order.begin(), order.end());
  panel_bytes_ = panel_bytes(kernels, quant_, inputs_);
  std::vector<std::int64_t> outputs;
  for (const QuantizedRows* source : parts) outputs.push_back(source->outputs());
  lay_out(outputs);
  const std::int64_t run = panels_in_run(panel_bytes_);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    for (std::int64_t begin = 0; begin < panels(i); begin += run) {
      const std::int64_t end = std::min(begin + run, panels(i));
      pack(*parts[i], parts_[i], begin, end);
      if (packed) {
        packed(i, begin * kernels.nr, std::min(end * kernels.nr, parts[i]->outputs()));
      }
    }
  }
}

std::size_t PackedWeight::nbytes_of(const Kernels& kernels, std::span<const std::int64_t> outputs,
                                    std::int64_t inputs, DataType kept, const QuantFormat& quant) {
  const std::size_t panel =
      quant ? panel_bytes(kernels, quant, inputs) : panel_bytes(kernels, format_of(kept), inputs);
  std::int64_t count = 0;
  for (const std::int64_t rows : outputs) count += panel_count(kernels, rows);
  return static_cast<std::size_t>(count) * panel;
}

void PackedWeight::lay_out(std::span<const std::int64_t> outputs) {
  std::int64_t count = 0;
  for (const std::int64_t rows : outputs) {
    parts_.push_back({rows, count});
    count += panel_count(kernels_, rows);
  }
  memory_ = host_memory(static_cast<std::size_t>(count) * panel_bytes_);
}

void PackedWeight::pack(const QuantizedRows& source, const Part& part, std::int64_t first,
                        std::int64_t last) {
  const std::int64_t nr = kernels_.nr;
  parallel_for(last - first, 1, [&](std::int64_t begin, std::int64_t end) {
    RowBuffer buffer(quant_, inputs_);
    for (std::int64_t i = first + begin; i < first + end; ++i) {
      std::byte* to =
          memory_->data() + static_cast<std::size_t>(part.first_panel + i) * panel_bytes_;
      const std::int64_t rows = std::min(nr, part.outputs - i * nr);
      if (rows < nr) std::memset(to, 0, panel_bytes_);
      for (std::int64_t n = 0; n < rows; ++n) {
        source.read(i * nr + n, buffer.codes, buffer.scales, buffer.zeros);
        write_row(to, quant_, kernels_.nr, static_cast<int>(n), buffer.row());
      }
    }
  });
}

QuantizedMatrix PackedWeight::unpack_quantized(std::size_t part) const {
  check(format_ == Format::Quantised, "expected a quantised weight, found one of ",
        name_of(dtype()));
  const std::int64_t outputs = parts_[part].outputs, groups = group_count(quant_, inputs_);
  QuantizedMatrix m{quant_, Tensor::empty({outputs, inputs_}, DataType::U8),
                    Tensor::empty({outputs, groups}, DataType::F32),
                    Tensor::empty({outputs, groups}, DataType::U8), input_order_};
  std::memset(m.zeros.data(), quant_.middle(), m.zeros.nbytes());
  auto* codes = reinterpret_cast<std::uint8_t*>(m.codes.data());
  auto* scales = reinterpret_cast<float*>(m.scales.data());
  auto* zeros = reinterpret_cast<std::uint8_t*>(m.zeros.data());
  parallel_for(outputs, kernels_.nr, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const auto width = static_cast<std::size_t>(groups);
      const QuantisedRow row = {{codes + n * inputs_, static_cast<std::size_t>(inputs_)},
                                {scales + n * groups, width},
                                {zeros + n * groups, width}};
      read_row(panel(part, n / kernels_.nr), quant_, kernels_.nr, static_cast<int>(n % kernels_.nr),
               row);
    }
  });
  return m;
}

void PackedWeight::widen_row(std::size_t part, std::int64_t row, float* out) const {
  const std::byte* from = panel(part, row / kernels_.nr);
  const int n = static_cast<int>(row % kernels_.nr);
  if (!quant_) return kernels_.widen_row(from, format_, inputs_, n, out);
  RowBuffer buffer(quant_, inputs_);
  read_row(from, quant_, kernels_.nr, n, buffer.row());
  for (std::int64_t k = 0; k < inputs_; ++k) {
    const auto column = static_cast<std::size_t>(k), g = static_cast<std::size_t>(k / quant_.group);
    const int zero = quant_.zeros ? buffer.zeros[g] : quant_.middle();
    const std::int64_t input = input_order_.empty() ? k : input_order_[column];
    out[input] = static_cast<float>(buffer.codes[column] - zero) * buffer.scales[g];
  }
}

DataType PackedWeight::dtype() const {
  if (format_ == Format::Quantised) return DataType::F32;
  return format_ == Format::F32   ? DataType::F32
         : format_ == Format::F16 ? DataType::F16
                                  : DataType::BF16;
}

std::int64_t PackedWeight::panels(std::size_t part) const noexcept {
  return panel_count(kernels_, parts_[part].outputs);
}

const std::byte* PackedWeight::panel(std::size_t part, std::int64_t index) const noexcept {
  return memory_->data() +
         static_cast<std::size_t>(parts_[part].first_panel + index) * panel_bytes_;
}

void PackedWeight::pack(const Tensor& source, const Part& part, std::int64_t first,
                        std::int64_t last) {
  const std::int64_t nr = kernels_.nr;
  const std::size_t row_bytes = static_cast<std::size_t>(inputs_) * source.itemsize();
  const Format source_format = format_of(source.dtype());
  parallel_for(last - first, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = first + begin; i < first + end; ++i) {
      PackPanel task;
      task.source = source.data() + static_cast<std::size_t>(i * nr) * row_bytes;
      task.source_format = source_format;
      task.format = format_;
      task.rows = part.outputs - i * nr < nr ? part.outputs - i * nr : nr;
      task.depth = inputs_;
      task.panel = memory_->data() + static_cast<std::size_t>(part.first_panel + i) * panel_bytes_;
      kernels_.pack_panel(task);
    }
  });
}

Tensor PackedWeight::unpack(std::size_t part) const {
  const std::int64_t outputs = parts_[part].outputs;
  Tensor rows = Tensor::empty({outputs, inputs_}, dtype());
  const std::size_t row_bytes = static_cast<std::size_t>(inputs_) * size_of(dtype());
  parallel_for(outputs, kernels_.nr, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      if (quant_) {
        widen_row(part, n, reinterpret_cast<float*>(rows.data()) + n * inputs_);
        continue;
      }
      kernels_.unpack_row(panel(part, n / kernels_.nr), format_, inputs_,
                          static_cast<int>(n % kernels_.nr),
                          rows.data() + static_cast<std::size_t>(n) * row_bytes);
    }
  });
  return rows;
}

}  // namespace infinilm::cpu
