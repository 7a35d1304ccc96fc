#include "cpu/ops_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/int8_rows.hpp"
#include "cpu/pool.hpp"
#include "cpu/scratch.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cpu {
namespace {

static_assert(static_cast<int>(Act::Silu) == static_cast<int>(HiddenAct::Silu));
static_assert(static_cast<int>(Act::Gelu) == static_cast<int>(HiddenAct::Gelu));
static_assert(static_cast<int>(Act::GeluTanh) == static_cast<int>(HiddenAct::GeluTanh));
static_assert(static_cast<int>(Act::Relu) == static_cast<int>(HiddenAct::Relu));

Act act_of(HiddenAct act) { return static_cast<Act>(act); }

const PackedWeight& packed(const Weight& weight) {
  return static_cast<const PackedWeight&>(weight);
}

// Calls row(r) for each row, many rows in a chunk if they are short.
template <class Row>
void for_rows(std::int64_t rows, std::int64_t cols, Row row) {
  constexpr std::int64_t kChunkElements = 16384;
  const std::int64_t grain =
      std::max<std::int64_t>(1, kChunkElements / std::max<std::int64_t>(cols, 1));
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) row(r);
  });
}

// Panels that one task multiplies, `count` from `first` on of a part; of both parts for gate and up.
struct Group {
  std::size_t part;
  std::int64_t first;
  int count;
};

// The product of some rows with all of a weight. Every way of cutting it gives the same bits.
class Product {
 public:
  // `pairs`: a task takes a panel of part 0 and the same one of part 1 together.
  Product(const Kernels& kernels, Matrix x, const PackedWeight& weight, bool pairs)
      : kernels_(kernels),
        x_(x),
        weight_(weight),
        pairs_(pairs),
        planes_(planes_of(kernels, x, weight)),
        strip_(planes_ ? kMaxStrip : kernels.strip(weight.round_bf16())),
        chunk_rows_(weight.quant() && planes_ == 0 ? kWidenedChunkRows : kChunkRows) {
    const std::int64_t chunks =
        (strip_count(std::min(x.rows, kRowBlock), strip_) + chunk_strips() - 1) / chunk_strips();
    if (!weight.input_order().empty()) gather_columns();
    if (weight.int8_activations() && planes_ == 0) round_rows();
    std::int64_t panels = 0;
    const std::size_t parts = pairs ? 1 : weight.parts();
    for (std::size_t p = 0; p < parts; ++p) panels += weight.panels(p);
    std::int64_t size = pairs ? kernels.panels_per_task / 2 : kernels.panels_per_task;
    while (size > 1 && panels * chunks < 4 * size * pool_threads()) size /= 2;
    for (std::size_t p = 0; p < parts; ++p) {
      for (std::int64_t first = 0; first < weight.panels(p); first += size) {
        groups_.push_back({p, first, static_cast<int>(std::min(size, weight.panels(p) - first))});
      }
    }
  }

  // store(group, row, rows, tile): the tile has the group's panels one after the other, [rows][nr] each.
  template <class Store>
  void run(Store store) {
    for (std::int64_t row = 0; row < x_.rows; row += kRowBlock) {
      run_block(row, std::min(kRowBlock, x_.rows - row), store);
    }
  }

 private:
  // Rows that are packed at a time: bounds the memory for them.
  static constexpr std::int64_t kRowBlock = kChunkRows * 8;
  // Widening a quantised panel is worth more rows.
  static constexpr int kWidenedChunkRows = 4 * kChunkRows;

  static int planes_of(const Kernels& kernels, const Matrix& x, const PackedWeight& weight) {
    if (!weight.quant() || kernels.integer_rows == 0) return 0;
    return weight.round_bf16() && x.rows > kernels.integer_rows ? 0 : weight.planes();
  }

  // Into the order in which the weight keeps them.
  void gather_columns() {
    const std::span<const std::int32_t> order = weight_.input_order();
    const Matrix gathered = {gathered_.floats(x_.rows * x_.cols), x_.rows, x_.cols, x_.cols};
    for_rows(x_.rows, x_.cols, [&](std::int64_t r) {
      const float* from = x_.row(r);
      float* to = gathered.row(r);
      for (std::size_t k = 0; k < order.size(); ++k) to[k] = from[order[k]];
    });
    x_ = gathered;
  }

  // To int8 and back, where no instructions multiply integers.
  void round_rows() {
    const Matrix rounded = {rounded_.floats(x_.rows * x_.cols), x_.rows, x_.cols, x_.cols};
    for_rows(x_.rows, x_.cols, [&](std::int64_t r) {
      round_to_int8(x_.row(r), x_.cols, integer_run(weight_.quant()), rounded.row(r));
    });
    x_ = rounded;
  }

  // Strips that one task multiplies.
  std::int64_t chunk_strips() const { return chunk_rows_ / strip_; }
  // Bytes of the packed rows.
  std::int64_t packed_bytes(std::int64_t rows) const {
    if (planes_ == 0) return rows * padded_depth(x_.cols, kernels_.depth_step) * 4;
    const QuantFormat& format = weight_.quant();
    const std::int64_t runs = group_count(format, x_.cols) * format.group / integer_run(format);
    return rows * runs * integer_run_bytes(format, planes_);
  }

  template <class Store>
  void run_block(std::int64_t first_row, std::int64_t rows, Store store) {
    thread_local Scratch scratch;
    float* a = scratch.floats(packed_bytes(rows) / 4);
    pack_rows(first_row, rows, a);
    const std::int64_t strips = strip_count(rows, strip_);
    const std::int64_t chunks = (strips + chunk_strips() - 1) / chunk_strips();
    const auto tasks = static_cast<std::int64_t>(groups_.size()) * chunks;
    parallel_for(tasks, grain(rows / chunks), [&](std::int64_t begin, std::int64_t end) {
      thread_local Scratch tiles;
      float* tile = tiles.floats(kTileFloats * (chunk_rows_ / kChunkRows));
      for (std::int64_t i = begin; i < end; ++i) {
        const Group& group = groups_[static_cast<std::size_t>(i / chunks)];
        GemmTask task;
        task.a = a;
        task.rows = rows;
        task.strip_begin = strips * (i % chunks) / chunks;
        task.strip_end = strips * (i % chunks + 1) / chunks;
        task.out = tile;
        multiply(task, group);
        const std::int64_t row = strip_row(rows, task.strip_begin, strip_);
        store(group, first_row + row, strip_row(rows, task.strip_end, strip_) - row, tile);
      }
    });
  }

  void pack_rows(std::int64_t first_row, std::int64_t rows, float* a) {
    constexpr std::int64_t kChunkElements = 32768;
    const std::int64_t row_elements = std::max<std::int64_t>(strip_ * x_.cols, 1);
    const std::int64_t grain = std::max<std::int64_t>(1, kChunkElements / row_elements);
    parallel_for(strip_count(rows, strip_), grain, [&](std::int64_t begin, std::int64_t end) {
      PackRows task;
      task.x = x_.row(first_row);
      task.stride = x_.stride;
      task.rows = rows;
      task.depth = x_.cols;
      task.round_bf16 = weight_.round_bf16();
      task.planes = planes_;
      task.quant = weight_.quant();
      task.strip_begin = begin;
      task.strip_end = end;
      task.out = a;
      kernels_.pack_rows(task);
    });
  }

  // Tasks in a chunk of the pool: so many that it is worth handing out.
  std::int64_t grain(std::int64_t rows) const {
    constexpr std::int64_t kChunkProducts = 65536;
    const std::int64_t panels = groups_.empty() ? 1 : groups_.front().count * (pairs_ ? 2 : 1);
    const std::int64_t products = std::max<std::int64_t>(rows * x_.cols * kernels_.nr * panels, 1);
    return std::max<std::int64_t>(1, kChunkProducts / products);
  }

  void multiply(GemmTask& task, const Group& group) {
    task.depth = x_.cols;
    task.format = weight_.format();
    task.round_bf16 = weight_.round_bf16();
    task.quant = weight_.quant();
    task.planes = planes_;
    task.panel_count = group.count * (pairs_ ? 2 : 1);
    for (int p = 0; p < group.count; ++p) {
      task.panels[p] = weight_.panel(group.part, group.first + p);
      if (pairs_) task.panels[group.count + p] = weight_.panel(1, group.first + p);
    }
    kernels_.gemm(task);
  }

  const Kernels& kernels_;
  Matrix x_;
  const PackedWeight& weight_;
  bool pairs_;
  int planes_;  // of integers; 0: floats
  int strip_;
  int chunk_rows_;
  std::vector<Group> groups_;
  Scratch gathered_;
  Scratch rounded_;
};

const float* bias_at(std::span<const float* const> bias, std::size_t part, std::int64_t column) {
  return bias.empty() || bias[part] == nullptr ? nullptr : bias[part] + column;
}

}  // namespace

std::unique_ptr<Weight> OpsCpu::pack(std::span<const Tensor> parts, DataType compute,
                                     const PartPacked& packed) {
  return std::make_unique<PackedWeight>(kernels_, parts, compute, packed);
}

std::unique_ptr<Weight> OpsCpu::pack_quantized(std::span<const QuantizedRows* const> parts,
                                               DataType compute, bool int8_activations,
                                               const RowsPacked& packed) {
  return std::make_unique<PackedWeight>(kernels_, parts, compute, int8_activations, packed);
}

std::size_t OpsCpu::packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                                 DataType kept, const QuantFormat& quant) const {
  return PackedWeight::nbytes_of(kernels_, outputs, inputs, kept, quant);
}

QuantizedMatrix OpsCpu::unpack_quantized(const Weight& weight, std::size_t part) {
  return packed(weight).unpack_quantized(part);
}

Tensor OpsCpu::unpack(const Weight& weight, std::size_t part) {
  return packed(weight).unpack(part);
}

void OpsCpu::embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) {
  const PackedWeight& w = packed(table);
  for_rows(static_cast<std::int64_t>(ids.size()), y.cols, [&](std::int64_t t) {
    const std::int64_t id = ids[static_cast<std::size_t>(t)];
    w.widen_row(0, id, y.row(t));
  });
}

void OpsCpu::rms_norm(Matrix x, const float* w, float eps, Matrix y) {
  for_rows(x.rows, x.cols,
           [&](std::int64_t r) { kernels_.rms_norm(x.row(r), w, eps, x.cols, y.row(r)); });
}

void OpsCpu::linear(Matrix x, const Weight& w, std::span<const float* const> bias,
                    std::span<const Matrix> y, const std::optional<Matrix>& residual) {
  const std::int64_t nr = kernels_.nr;
  Product product(kernels_, x, packed(w), false);
  product.run([&](const Group& group, std::int64_t row, std::int64_t rows, const float* tile) {
    const Matrix& out = y[group.part];
    for (int p = 0; p < group.count; ++p) {
      const std::int64_t column = (group.first + p) * nr;
      StoreTile task;
      task.tile = tile + p * rows * nr;
      task.rows = rows;
      task.cols = std::min(nr, out.cols - column);
      task.bias = bias_at(bias, group.part, column);
      task.y = out.row(row) + column;
      task.stride = out.stride;
      if (residual) {
        task.residual = residual->row(row) + column;
        task.residual_stride = residual->stride;
      }
      kernels_.store(task);
    }
  });
}

void OpsCpu::linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                            HiddenAct act, Matrix y) {
  const std::int64_t nr = kernels_.nr;
  Product product(kernels_, x, packed(gate_up), true);
  product.run([&](const Group& group, std::int64_t row, std::int64_t rows, const float* tile) {
    for (int p = 0; p < group.count; ++p) {
      const std::int64_t column = (group.first + p) * nr;
      StoreTile task;
      task.tile = tile + p * rows * nr;
      task.tile_up = tile + (group.count + p) * rows * nr;
      task.rows = rows;
      task.cols = std::min(nr, y.cols - column);
      task.bias = bias_at(bias, 0, column);
      task.bias_up = bias_at(bias, 1, column);
      task.y = y.row(row) + column;
      task.stride = y.stride;
      task.act = act_of(act);
      kernels_.store_act_mul(task);
    }
  });
}

void OpsCpu::act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) {
  for_rows(y.rows, y.cols, [&](std::int64_t r) {
    kernels_.act_mul(gate.row(r), up.row(r), act_of(act), y.cols, y.row(r));
  });
}

void OpsCpu::add(Matrix x, Matrix y) {
  for_rows(x.rows, x.cols, [&](std::int64_t r) { kernels_.add(x.row(r), x.cols, y.row(r)); });
}

void OpsCpu::rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) {
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    for (std::int64_t column = 0; column + head_dim <= x.cols; column += head_dim) {
      kernels_.rope(x.row(r) + column, cos.row(r), sin.row(r), head_dim / 2);
    }
  });
}

void OpsCpu::softmax(Matrix x) {
  for_rows(x.rows, x.cols, [&](std::int64_t r) { kernels_.softmax(x.row(r), x.cols); });
}

void OpsCpu::copy(Matrix from, Matrix to) {
  for_rows(from.rows, from.cols, [&](std::int64_t r) {
    std::memmove(to.row(r), from.row(r), static_cast<std::size_t>(from.cols) * sizeof(float));
  });
}

std::unique_ptr<Choice> OpsCpu::argmax(Matrix x) {
  std::vector<Chosen> found;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.row(r);
    std::int64_t best = 0;
    for (std::int64_t c = 1; c < x.cols && !std::isnan(row[best]); ++c) {
      if (row[c] > row[best] || std::isnan(row[c])) best = c;
    }
    found.push_back({best, row[best]});
  }
  return std::make_unique<KnownChoice>(std::move(found));
}

void OpsCpu::penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) {
  for (const UsedToken& u : used) {
    float& logit = x.row(u.row)[u.id];
    logit = penalized(logit, u.generated, how);
  }
}

void OpsCpu::log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                               std::span<float> found) {
  // An exponential takes as long as some ten of what rows are made of as a rule.
  for_rows(x.rows, 10 * x.cols, [&](std::int64_t r) {
    const float* row = x.row(r);
    const auto i = static_cast<std::size_t>(r);
    const double largest = *std::max_element(row, row + x.cols);
    double sum = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) sum += std::exp(row[c] - largest);
    found[i] = static_cast<float>(row[columns[i]] - largest - std::log(sum));
  });
}

void OpsCpu::upload(const void* host, void* to, std::size_t nbytes) {
  copy_bytes(host, to, nbytes);
}

void OpsCpu::download(const void* from, void* host, std::size_t nbytes) {
  copy_bytes(from, host, nbytes);
}

void OpsCpu::copy_bytes(const void* from, void* to, std::size_t nbytes) {
  if (nbytes > 0) std::memmove(to, from, nbytes);
}

bool OpsCpu::can_compute(DataType dtype) const {
  return dtype == DataType::F32 || dtype == DataType::BF16;
}

}  // namespace infinilm::cpu
