#include "cuda/weight.hpp"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "base/half.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr std::size_t kRunBytes = std::size_t{1} << 24;

std::int64_t row_bytes(Layout layout, std::int64_t inputs) {
  const std::int64_t bytes = inputs * (layout == Layout::F32 ? 4 : 2);
  return (bytes + 15) / 16 * 16;
}

std::int64_t tile_count(std::int64_t outputs) { return (outputs + kTileRows - 1) / kTileRows; }

// A view of no part yet: as much as all parts have in common.
MatrixView common_view(std::int64_t inputs, Layout layout, const QuantFormat& quant) {
  MatrixView view;
  view.inputs = static_cast<int>(inputs);
  view.layout = layout;
  if (quant) {
    view.unit = unit_layout(quant, inputs);
  } else {
    view.row_bytes = row_bytes(layout, inputs);
  }
  return view;
}

// What a part takes, with what lies between it and the next one.
std::size_t part_bytes(const MatrixView& view, std::int64_t outputs) {
  const bool is_quantised = view.unit.units > 0;
  const std::int64_t bytes =
      is_quantised ? tile_count(outputs) * view.unit.tile_bytes() : outputs * view.row_bytes;
  return (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
}

Layout layout_of(const QuantFormat& quant) { return quant.bits == 4 ? Layout::Q4 : Layout::Q8; }

// Frees on every way out of a block.
class Temporary {
 public:
  Temporary(Context& context, std::size_t nbytes) : context_(context) {
    const Context::Use use(context);
    memory_ = context.allocate(nbytes);
  }
  ~Temporary() { context_.free(memory_); }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  std::byte* data() const noexcept { return static_cast<std::byte*>(memory_); }

 private:
  Context& context_;
  void* memory_ = nullptr;
};

// Calls body(begin, end) for shares of [0, count) on some threads. `body` does not throw.
template <class Body>
void on_threads(std::int64_t count, Body body) {
  constexpr std::int64_t kMostThreads = 16;
  const auto cores = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const std::int64_t shares = std::max<std::int64_t>(1, std::min({kMostThreads, cores, count}));
  std::vector<std::jthread> threads;
  for (std::int64_t i = 1; i < shares; ++i) {
    threads.emplace_back([=] { body(count * i / shares, count * (i + 1) / shares); });
  }
  body(0, count / shares);
}

// One row of QuantizedRows, with room for the codes of padding columns.
struct QuantisedRow {
  QuantisedRow(const QuantFormat& format, std::int64_t inputs)
      : codes(static_cast<std::size_t>(inputs)),
        scales(static_cast<std::size_t>(group_count(format, inputs))),
        zeros(format.zeros ? scales.size() : 0) {}
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros;
};

// A row into a tile of cleared memory, and out of it.
class TileRow {
 public:
  TileRow(const QuantFormat& format, const UnitLayout& layout, std::byte* tile, int row)
      : format_(format), layout_(layout), tile_(tile), row_(row) {}

  void write(const QuantisedRow& from) const {
    const auto inputs = static_cast<std::int64_t>(from.codes.size());
    for (std::int64_t c = 0; c < std::int64_t{layout_.units} * layout_.columns; ++c) {
      const std::size_t g = group_of(c);
      const bool inside = c < inputs;
      const int zero = format_.zeros && g < from.zeros.size() ? from.zeros[g] : format_.middle();
      put_code(c, inside ? from.codes[static_cast<std::size_t>(c)] : zero);
      if (c % layout_.run_columns() != 0) continue;
      const std::uint16_t scale = g < from.scales.size() ? to_f16(from.scales[g]) : 0;
      std::memcpy(scale_at(c), &scale, sizeof scale);
      if (format_.zeros) *zero_at(c) = static_cast<std::byte>(zero);
    }
  }

  void read(std::span<std::uint8_t> codes, std::span<float> scales,
            std::span<std::uint8_t> zeros) const {
    for (std::size_t c = 0; c < codes.size(); ++c) {
      codes[c] = code(static_cast<std::int64_t>(c));
    }
    for (std::size_t g = 0; g < scales.size(); ++g) {
      const std::int64_t c = static_cast<std::int64_t>(g) * format_.group;
      std::uint16_t scale;
      std::memcpy(&scale, scale_at(c), sizeof scale);
      scales[g] = from_f16(scale);
      if (format_.zeros) zeros[g] = static_cast<std::uint8_t>(*zero_at(c));
    }
  }

 private:
  std::size_t group_of(std::int64_t column) const {
    return static_cast<std::size_t>(column / format_.group);
  }
  std::byte* unit(std::int64_t column) const {
    return tile_ + column / layout_.columns * layout_.bytes;
  }
  int run(std::int64_t column) const {
    return static_cast<int>(column % layout_.columns / layout_.run_columns());
  }
  CodePlace place(std::int64_t column) const {
    return code_place(format_.bits, row_, static_cast<int>(column % layout_.columns));
  }
  std::byte* scale_at(std::int64_t column) const {
    return unit(column) + scale_place(layout_, row_, run(column));
  }
  std::byte* zero_at(std::int64_t column) const {
    return unit(column) + zero_place(layout_, row_, run(column));
  }
  void put_code(std::int64_t column, int code) const {
    const CodePlace at = place(column);
    unit(column)[at.byte] |= static_cast<std::byte>(code << at.shift);
  }
  std::uint8_t code(std::int64_t column) const {
    const CodePlace at = place(column);
    const auto byte = static_cast<unsigned>(unit(column)[at.byte]);
    return static_cast<std::uint8_t>(format_.bits == 4 ? byte >> at.shift & 15u : byte);
  }

  const QuantFormat& format_;
  const UnitLayout& layout_;
  std::byte* tile_;
  int row_;
};

}  // namespace

Layout layout_of(DataType dtype) {
  switch (dtype) {
    case DataType::F32:
      return Layout::F32;
    case DataType::F16:
      return Layout::F16;
    case DataType::BF16:
      return Layout::Bf16;
    default:
      throw ValueError(
          concat("expected a weight of float32, float16 or bfloat16, found ", name_of(dtype)));
  }
}

CudaWeight::CudaWeight(std::shared_ptr<Context> context, std::span<const Tensor> parts,
                       DataType compute, const PartPacked& packed)
    : context_(std::move(context)),
      inputs_(parts.front().shape()[1]),
      layout_(layout_of(compute == DataType::F32 ? parts.front().dtype() : compute)),
      compute_(compute) {
  std::vector<std::int64_t> outputs;
  for (const Tensor& source : parts) outputs.push_back(source.shape()[0]);
  allocate(outputs);
  try {
    for (std::size_t i = 0; i < parts.size(); ++i) upload(parts[i], i, packed);
    settle();
  } catch (...) {
    context_->free(memory_);
    throw;
  }
}

CudaWeight::CudaWeight(std::shared_ptr<Context> context,
                       std::span<const QuantizedRows* const> parts, DataType compute,
                       const RowsPacked& packed)
    : context_(std::move(context)),
      inputs_(parts.front()->inputs()),
      layout_(layout_of(parts.front()->format())),
      quant_(parts.front()->format()),
      compute_(compute) {
  std::vector<std::int64_t> outputs;
  for (const QuantizedRows* source : parts) outputs.push_back(source->outputs());
  const auto order = common_order(parts);
  input_order_.assign(order.begin(), order.end());
  allocate(outputs);
  try {
    upload_order();
    for (std::size_t i = 0; i < parts.size(); ++i) upload(*parts[i], i, packed);
    settle();
  } catch (...) {
    context_->free(memory_);
    throw;
  }
}

// Kernels load weights before those in front of them have ended: so they must lie there when an operation first asks for them.
void CudaWeight::settle() {
  const Context::Use use(*context_);
  context_->synchronize();
}

CudaWeight::~CudaWeight() { context_->free(memory_); }

DataType CudaWeight::dtype() const {
  switch (layout_) {
    case Layout::F16:
      return DataType::F16;
    case Layout::Bf16:
      return DataType::BF16;
    default:
      return DataType::F32;
  }
}

std::size_t CudaWeight::nbytes_of(std::span<const std::int64_t> outputs, std::int64_t inputs,
                                  DataType kept, const QuantFormat& quant) {
  const MatrixView view = common_view(inputs, quant ? layout_of(quant) : layout_of(kept), quant);
  std::size_t total = 0;
  for (const std::int64_t rows : outputs) total += part_bytes(view, rows);
  return total;
}

void CudaWeight::allocate(std::span<const std::int64_t> outputs) {
  MatrixView view = common_view(inputs_, layout_, quant_);
  std::vector<std::size_t> begins;
  for (const std::int64_t rows : outputs) {
    begins.push_back(nbytes_);
    nbytes_ += part_bytes(view, rows);
  }
  const std::size_t order_begin = nbytes_;
  nbytes_ += input_order_.size() * sizeof(std::int32_t);
  const Context::Use use(*context_);
  memory_ = static_cast<std::byte*>(context_->allocate(nbytes_));
  if (!input_order_.empty()) {
    order_ = reinterpret_cast<const std::int32_t*>(memory_ + order_begin);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    view.data = memory_ + begins[i];
    view.outputs = static_cast<int>(outputs[i]);
    parts_.push_back(view);
  }
}

void CudaWeight::upload_order() {
  const Context::Use use(*context_);
  context_->upload(input_order_.data(), const_cast<std::int32_t*>(order_),
                   input_order_.size() * sizeof(std::int32_t));
}

namespace {

// `count` rows of `row` bytes, each padded with zeros to `padded_row`.
std::vector<std::byte> pad_rows(const std::byte* from, std::int64_t count, std::size_t row,
                                std::size_t padded_row) {
  std::vector<std::byte> padded(static_cast<std::size_t>(count) * padded_row);
  for (std::size_t r = 0; r < static_cast<std::size_t>(count); ++r) {
    std::memcpy(padded.data() + r * padded_row, from + r * row, row);
  }
  return padded;
}

}  // namespace

void CudaWeight::upload(const Tensor& source, std::size_t part, const PartPacked& packed) {
  const MatrixView& to = parts_[part];
  // As it is stored, each row padded; then, if that is not how it is kept, rounded on the device.
  MatrixView stored = to;
  stored.layout = layout_of(source.dtype());
  stored.row_bytes = row_bytes(stored.layout, inputs_);
  const std::size_t source_row = static_cast<std::size_t>(inputs_) * source.itemsize();
  const auto stored_row = static_cast<std::size_t>(stored.row_bytes);
  const bool is_rounded = stored.layout != layout_;
  const auto run = static_cast<std::int64_t>(
      std::max<std::size_t>(1, kRunBytes / std::max<std::size_t>(stored_row, 1)));
  const std::int64_t rows = source.shape()[0];
  const Temporary temporary(
      *context_, is_rounded ? static_cast<std::size_t>(std::min(run, rows)) * stored_row : 0);
  for (std::int64_t begin = 0; begin < rows; begin += run) {
    const std::int64_t count = std::min(run, rows - begin);
    const std::byte* from = source.data() + static_cast<std::size_t>(begin) * source_row;
    std::vector<std::byte> padded;
    if (stored_row != source_row) {
      padded = pad_rows(from, count, source_row, stored_row);
      from = padded.data();
    }
    auto* target = const_cast<std::byte*>(to.data) + begin * to.row_bytes;
    {
      const Context::Use use(*context_);
      context_->upload(from, is_rounded ? temporary.data() : target,
                       static_cast<std::size_t>(count) * stored_row);
      stored.data = temporary.data();
      if (is_rounded) {
        widen_rows(*context_, stored, 0, count, compute_, target, to.row_bytes / 2);
      }
    }
    if (packed) {
      packed(part, static_cast<std::size_t>(begin) * source_row,
             static_cast<std::size_t>(begin + count) * source_row);
    }
  }
}

void CudaWeight::upload(const QuantizedRows& source, std::size_t part, const RowsPacked& packed) {
  const MatrixView& to = parts_[part];
  const auto tile_bytes = static_cast<std::size_t>(to.unit.tile_bytes());
  const std::int64_t tiles = tile_count(to.outputs);
  const auto run = static_cast<std::int64_t>(
      std::max<std::size_t>(16, kRunBytes / std::max<std::size_t>(tile_bytes, 1)));
  std::vector<std::byte> memory;
  for (std::int64_t begin = 0; begin < tiles; begin += run) {
    const std::int64_t count = std::min(run, tiles - begin);
    memory.assign(static_cast<std::size_t>(count) * tile_bytes, std::byte{});
    on_threads(count, [&](std::int64_t first, std::int64_t last) {
      QuantisedRow row(quant_, inputs_);
      for (std::int64_t i = first * kTileRows; i < last * kTileRows; ++i) {
        const std::int64_t output = begin * kTileRows + i;
        if (output >= to.outputs) break;
        source.read(output, row.codes, row.scales, row.zeros);
        std::byte* tile = memory.data() + static_cast<std::size_t>(i / kTileRows) * tile_bytes;
        TileRow(quant_, to.unit, tile, static_cast<int>(i % kTileRows)).write(row);
      }
    });
    {
      const Context::Use use(*context_);
      auto* target = const_cast<std::byte*>(to.data) + static_cast<std::size_t>(begin) * tile_bytes;
      context_->upload(memory.data(), target, memory.size());
    }
    if (packed) {
      packed(part, begin * kTileRows,
             std::min<std::int64_t>((begin + count) * kTileRows, to.outputs));
    }
  }
}

namespace {

// Float32 columns that stand in `order`, each back in its own place.
void restore_columns(const Tensor& rows, std::span<const std::int32_t> order) {
  auto* row = reinterpret_cast<float*>(rows.data());
  std::vector<float> kept(order.size());
  for (std::int64_t r = 0; r < rows.shape()[0]; ++r, row += order.size()) {
    std::copy_n(row, order.size(), kept.begin());
    for (std::size_t k = 0; k < order.size(); ++k) row[order[k]] = kept[k];
  }
}

}  // namespace

Tensor CudaWeight::unpack(std::size_t part) const {
  const MatrixView& from = parts_[part];
  Tensor rows = Tensor::empty({from.outputs, inputs_}, dtype());
  const std::size_t row = static_cast<std::size_t>(inputs_) * rows.itemsize();
  if (quant_) {
    const auto run = static_cast<std::int64_t>(
        std::max<std::size_t>(1, kRunBytes / std::max<std::size_t>(row, 1)));
    const Temporary wide(*context_,
                         static_cast<std::size_t>(std::min<std::int64_t>(run, from.outputs)) * row);
    for (std::int64_t begin = 0; begin < from.outputs; begin += run) {
      const std::int64_t count = std::min(run, from.outputs - begin);
      widen_rows(*context_, from, begin, count, DataType::F32, wide.data(), inputs_);
      context_->download(wide.data(), rows.data() + static_cast<std::size_t>(begin) * row,
                         static_cast<std::size_t>(count) * row);
    }
    if (!input_order_.empty()) restore_columns(rows, input_order_);
    return rows;
  }
  const auto padded_row = static_cast<std::size_t>(from.row_bytes);
  if (padded_row == row) {
    context_->download(from.data, rows.data(), rows.nbytes());
    return rows;
  }
  std::vector<std::byte> padded(static_cast<std::size_t>(from.outputs) * padded_row);
  context_->download(from.data, padded.data(), padded.size());
  for (std::size_t r = 0; r < static_cast<std::size_t>(from.outputs); ++r) {
    std::memcpy(rows.data() + r * row, padded.data() + r * padded_row, row);
  }
  return rows;
}

QuantizedMatrix CudaWeight::unpack_quantized(std::size_t part) const {
  check(static_cast<bool>(quant_), "expected a quantised weight, found one of ", name_of(dtype()));
  const MatrixView& from = parts_[part];
  const std::int64_t outputs = from.outputs, groups = group_count(quant_, inputs_);
  QuantizedMatrix m{quant_, Tensor::empty({outputs, inputs_}, DataType::U8),
                    Tensor::empty({outputs, groups}, DataType::F32),
                    Tensor::empty({outputs, groups}, DataType::U8), input_order_};
  std::memset(m.zeros.data(), quant_.middle(), m.zeros.nbytes());
  const auto tile_bytes = static_cast<std::size_t>(from.unit.tile_bytes());
  std::vector<std::byte> tiles(static_cast<std::size_t>(tile_count(outputs)) * tile_bytes);
  context_->download(from.data, tiles.data(), tiles.size());
  auto* codes = reinterpret_cast<std::uint8_t*>(m.codes.data());
  auto* scales = reinterpret_cast<float*>(m.scales.data());
  auto* zeros = reinterpret_cast<std::uint8_t*>(m.zeros.data());
  for (std::int64_t n = 0; n < outputs; ++n) {
    std::byte* tile = tiles.data() + static_cast<std::size_t>(n / kTileRows) * tile_bytes;
    TileRow(quant_, from.unit, tile, static_cast<int>(n % kTileRows))
        .read({codes + n * inputs_, static_cast<std::size_t>(inputs_)},
              {scales + n * groups, static_cast<std::size_t>(groups)},
              {zeros + n * groups, static_cast<std::size_t>(groups)});
  }
  return m;
}

}  // namespace infinilm::cuda
