#include "cpu/weight.hpp"

#include <algorithm>

#include "cpu/memory.hpp"
#include "cpu/pool.hpp"
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

}  // namespace

PackedWeight::PackedWeight(const Kernels& kernels, std::span<const Tensor> parts, DataType compute,
                           const PartPacked& packed)
    : kernels_(kernels), inputs_(parts.front().shape()[1]), round_bf16_(compute == DataType::BF16) {
  format_ = round_bf16_ ? Format::Bf16 : format_of(parts.front().dtype());
  const std::int64_t depth = format_ == Format::Bf16 ? padded_depth(inputs_, kernels.depth_step) : inputs_;
  panel_bytes_ = static_cast<std::size_t>(depth * kernels.nr) * element_size(format_);
  std::int64_t count = 0;
  for (const Tensor& source : parts) {
    parts_.push_back({source.shape()[0], count});
    count += (source.shape()[0] + kernels.nr - 1) / kernels.nr;
  }
  memory_ = host_memory(static_cast<std::size_t>(count) * panel_bytes_);
  // In runs, so that what is packed can be let go and reported before a large matrix is through.
  constexpr std::size_t kRunBytes = std::size_t{1} << 23;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t panel = static_cast<std::size_t>(kernels.nr * inputs_) * parts[i].itemsize();
    const auto run = std::max<std::int64_t>(
        static_cast<std::int64_t>(kRunBytes / std::max<std::size_t>(panel, 1)), 4 * pool_threads());
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

DataType PackedWeight::dtype() const {
  return format_ == Format::F32   ? DataType::F32
         : format_ == Format::F16 ? DataType::F16
                                  : DataType::BF16;
}

std::int64_t PackedWeight::panels(std::size_t part) const noexcept {
  return (parts_[part].outputs + kernels_.nr - 1) / kernels_.nr;
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
  const std::size_t row_bytes = static_cast<std::size_t>(inputs_) * element_size(format_);
  parallel_for(outputs, kernels_.nr, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      kernels_.unpack_row(panel(part, n / kernels_.nr), format_, inputs_,
                          static_cast<int>(n % kernels_.nr),
                          rows.data() + static_cast<std::size_t>(n) * row_bytes);
    }
  });
  return rows;
}

}  // namespace infinilm::cpu
