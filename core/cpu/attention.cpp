// The part of OpsCpu that knows the cache: keys and values in blocks of 64 tokens.
//
// A layer's part of a block is K heads of keys [D][64], then K heads of values [64][value_stride(D)], see kernels.hpp.
// Scores of one query against 64 keys are thus 64 neighbouring sums, like a panel of a weight, and so are the D sums of
// p times values.
#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/ops_cpu.hpp"
#include "cpu/pool.hpp"
#include "cpu/scratch.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cpu {
namespace {

static_assert(kKeys == kKvBlock);

// Blocks whose partial results are formed on their own. Fixed, so that the order of sums does not depend on how many
// threads share a sequence.
constexpr std::int64_t kSegment = 8;
// Rows (query tokens x query heads of a key head) that one task takes through the cache.
constexpr std::int64_t kTileRows = 48;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Some neighbouring query tokens of one sequence, and one key head.
struct Item {
  const SequenceRows* sequence;
  std::int64_t first;  // token of this step within the sequence
  std::int64_t tokens;
  std::int64_t kv_head;
};

std::vector<Item> cut(std::span<const SequenceRows> sequences, const AttentionShape& shape) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t most = std::max<std::int64_t>(1, kTileRows / group);
  std::vector<Item> items;
  for (const SequenceRows& s : sequences) {
    for (std::int64_t first = 0; first < s.rows; first += most) {
      for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
        items.push_back({&s, first, std::min(most, s.rows - first), g});
      }
    }
  }
  return items;
}

KvFormat kv_format_of(DataType dtype) {
  switch (dtype) {
    case DataType::F32:
      return KvFormat::F32;
    case DataType::BF16:
      return KvFormat::Bf16;
    case DataType::I8:
      return KvFormat::Int8;
    default:
      throw ValueError(concat(
          "kv_cache_dtype: expected float32, bfloat16 or int8 on the CPU, found ", name_of(dtype)));
  }
}

// Of a head's keys and values within a block.
std::size_t key_offset(const AttentionShape& shape, std::int64_t kv_head) {
  const std::int64_t bytes = key_bytes(kv_format_of(shape.kv_dtype), shape.head_dim);
  return shape.kv_offset + static_cast<std::size_t>(kv_head * bytes);
}
std::size_t value_offset(const AttentionShape& shape, std::int64_t kv_head) {
  const std::int64_t bytes = value_bytes(kv_format_of(shape.kv_dtype), shape.head_dim);
  return key_offset(shape, shape.kv_heads) + static_cast<std::size_t>(kv_head * bytes);
}

// What the kernels need to know of an item; q and results are still missing.
AttendTask task_of(const Item& item, const AttentionShape& shape) {
  AttendTask task;
  task.group = shape.heads / shape.kv_heads;
  task.rows = item.tokens * task.group;
  task.head_dim = shape.head_dim;
  task.position = item.sequence->past + item.first;
  task.window = shape.window;
  task.scale = shape.scale;
  task.blocks = item.sequence->blocks.data();
  task.format = kv_format_of(shape.kv_dtype);
  task.k_offset = key_offset(shape, item.kv_head);
  task.v_offset = value_offset(shape, item.kv_head);
  return task;
}

// Which query head and which token of the step a row of the task is.
std::int64_t head_of(const Item& item, const AttendTask& task, std::int64_t row) {
  return item.kv_head * task.group + row % task.group;
}
std::int64_t token_of(const Item& item, const AttendTask& task, std::int64_t row) {
  return item.sequence->row_begin + item.first + row / task.group;
}
// A row's D columns of a matrix [T, A * D].
float* columns_of(Matrix x, const Item& item, const AttendTask& task, std::int64_t row) {
  return x.row(token_of(item, task, row)) + head_of(item, task, row) * task.head_dim;
}

// q's rows of an item in the kernels' strips.
void pack_q(Matrix q, const Item& item, const AttendTask& task, float* out) {
  const std::int64_t depth = task.head_dim;
  for (std::int64_t strip = 0; strip < strip_count(task.rows); ++strip) {
    const std::int64_t begin = strip_row(task.rows, strip), end = strip_row(task.rows, strip + 1);
    for (std::int64_t r = begin; r < end; ++r) {
      const float* head = columns_of(q, item, task, r);
      float* column = out + begin * depth + (r - begin);
      for (std::int64_t d = 0; d < depth; ++d) column[d * (end - begin)] = head[d];
    }
  }
}

// Floats of one partial result, and the places of its parts.
std::int64_t result_floats(const AttendTask& task) {
  return task.rows * (value_stride(task.head_dim) + 2);
}
void place_result(AttendTask& task, float* memory) {
  task.values = memory;
  task.peak = memory + task.rows * value_stride(task.head_dim);
  task.total = task.peak + task.rows;
}

struct Range {
  std::int64_t begin;
  std::int64_t end;
};

// Blocks that the item's tokens see, in segments of kSegment.
Range visible_blocks(const Item& item, const AttentionShape& shape) {
  const std::int64_t position = item.sequence->past + item.first;
  const std::int64_t first =
      shape.window > 0 ? std::max<std::int64_t>(0, position - shape.window + 1) : 0;
  return {first / kKeys, (position + item.tokens - 1) / kKeys + 1};
}
Range visible_segments(const Item& item, const AttentionShape& shape) {
  const Range blocks = visible_blocks(item, shape);
  return {blocks.begin / kSegment, (blocks.end - 1) / kSegment + 1};
}

// Room of this thread for one block in float32.
float* wide_block(const AttendTask& task) {
  thread_local Scratch scratch;
  return task.format == KvFormat::F32 ? nullptr : scratch.floats(wide_floats(task.head_dim));
}

class Attention {
 public:
  Attention(const Kernels& kernels, Matrix q, std::span<const SequenceRows> sequences,
            const AttentionShape& shape, Matrix y)
      : kernels_(kernels), q_(q), shape_(shape), y_(y), items_(cut(sequences, shape)) {}

  void run() {
    std::int64_t longest = 0;
    for (const Item& item : items_) {
      const Range segments = visible_segments(item, shape_);
      longest = std::max(longest, segments.end - segments.begin);
    }
    const auto count = static_cast<std::int64_t>(items_.size());
    if (longest > 1 && count < 2 * pool_threads()) return run_split(longest);
    parallel_for(count, grain(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run_item(items_[static_cast<std::size_t>(i)]);
    });
  }

 private:
  // Few items: a task for each segment, whose results are merged afterwards.
  void run_split(std::int64_t longest) {
    thread_local Scratch scratch;
    const auto count = static_cast<std::int64_t>(items_.size());
    std::int64_t slot = 0;
    for (const Item& item : items_) slot = std::max(slot, result_floats(task_of(item, shape_)));
    float* results = scratch.floats(count * longest * slot);
    parallel_for(count * longest, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Item& item = items_[static_cast<std::size_t>(i / longest)];
        const Range segments = visible_segments(item, shape_);
        const std::int64_t segment = segments.begin + i % longest;
        if (segment >= segments.end) continue;
        AttendTask task = task_of(item, shape_);
        place_result(task, results + i * slot);
        task.packed_q = packed_q(item, task);
        task.wide = wide_block(task);
        attend(item, segment, task);
      }
    });
    parallel_for(count, grain(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Item& item = items_[static_cast<std::size_t>(i)];
        const Range segments = visible_segments(item, shape_);
        AttendTask to = task_of(item, shape_), from = to;
        place_result(to, results + i * longest * slot);
        for (std::int64_t s = 1; s < segments.end - segments.begin; ++s) {
          place_result(from, results + (i * longest + s) * slot);
          kernels_.merge(from, to);
        }
        write(item, to);
      }
    });
  }

  void run_item(const Item& item) {
    thread_local Scratch scratch;
    AttendTask to = task_of(item, shape_), from = to;
    float* results = scratch.floats(2 * result_floats(to));
    place_result(to, results);
    place_result(from, results + result_floats(to));
    to.packed_q = from.packed_q = packed_q(item, to);
    to.wide = from.wide = wide_block(to);
    const Range segments = visible_segments(item, shape_);
    attend(item, segments.begin, to);
    for (std::int64_t s = segments.begin + 1; s < segments.end; ++s) {
      attend(item, s, from);
      kernels_.merge(from, to);
    }
    write(item, to);
  }

  const float* packed_q(const Item& item, const AttendTask& task) {
    thread_local Scratch scratch;
    float* out = scratch.floats(task.rows * task.head_dim);
    pack_q(q_, item, task, out);
    return out;
  }

  void attend(const Item& item, std::int64_t segment, AttendTask& task) {
    const Range blocks = visible_blocks(item, shape_);
    task.block_begin = std::max(blocks.begin, segment * kSegment);
    task.block_end = std::min(blocks.end, (segment + 1) * kSegment);
    kernels_.attend(task);
  }

  void write(const Item& item, const AttendTask& task) {
    for (std::int64_t r = 0; r < task.rows; ++r)
      kernels_.finish(task, r, columns_of(y_, item, task, r));
  }

  // Items in a chunk: short sequences are not worth a hand-over each.
  std::int64_t grain() const {
    constexpr std::int64_t kChunkProducts = 65536;
    if (items_.empty()) return 1;
    const Item& last = items_.back();
    const std::int64_t keys = last.sequence->past + last.sequence->rows;
    const std::int64_t products =
        2 * keys * shape_.head_dim * last.tokens * (shape_.heads / shape_.kv_heads);
    return std::max<std::int64_t>(1, kChunkProducts / std::max<std::int64_t>(products, 1));
  }

  const Kernels& kernels_;
  Matrix q_;
  const AttentionShape& shape_;
  Matrix y_;
  std::vector<Item> items_;
};

// The tokens of this step that go into one block of a sequence, for one key head.
KvWrite write_task(Matrix k, Matrix v, const SequenceRows& s, const AttentionShape& shape,
                   std::int64_t kv_head, std::int64_t block) {
  const std::int64_t begin = std::max(s.past, block * kKeys);
  const std::int64_t row = s.row_begin + begin - s.past;
  std::byte* memory = s.blocks[static_cast<std::size_t>(block)];
  KvWrite task;
  task.k = k.row(row) + kv_head * shape.head_dim;
  task.v = v.row(row) + kv_head * shape.head_dim;
  task.k_stride = k.stride;
  task.v_stride = v.stride;
  task.first = begin - block * kKeys;
  task.tokens = std::min(s.past + s.rows, (block + 1) * kKeys) - begin;
  task.head_dim = shape.head_dim;
  task.format = kv_format_of(shape.kv_dtype);
  task.keys = memory + key_offset(shape, kv_head);
  task.values = memory + value_offset(shape, kv_head);
  return task;
}

// One token's scores against all keys of its sequence, out of a block's: what it may not see is -inf.
void mask_scores(const float* scores, const AttendTask& task, std::int64_t row, std::int64_t block,
                 Range keys, float* out) {
  const std::int64_t position = task.position + row / task.group;
  const std::int64_t lowest = task.window > 0 ? position - task.window + 1 : 0;
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    out[j] =
        j >= lowest && j <= position ? scores[row * kKeys + j - block * kKeys] : kMinusInfinity;
  }
}

std::int64_t block_count(std::int64_t tokens) { return (tokens + kKeys - 1) / kKeys; }

// Calls body(item, task, length) for each item, in parallel; `length`: the keys of its sequence.
template <class Body>
void for_items(std::span<const SequenceRows> sequences, const AttentionShape& shape, Body body) {
  const std::vector<Item> items = cut(sequences, shape);
  parallel_for(static_cast<std::int64_t>(items.size()), 1,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const Item& item = items[static_cast<std::size_t>(i)];
                   AttendTask task = task_of(item, shape);
                   task.wide = wide_block(task);
                   body(item, task, item.sequence->past + item.sequence->rows);
                 }
               });
}

}  // namespace

std::size_t OpsCpu::kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                                   DataType dtype) const {
  const KvFormat format = kv_format_of(dtype);
  return static_cast<std::size_t>(kv_heads *
                                  (key_bytes(format, head_dim) + value_bytes(format, head_dim)));
}

void OpsCpu::kv_write(Matrix k, Matrix v, std::span<const SequenceRows> sequences,
                      const AttentionShape& shape) {
  for (const SequenceRows& s : sequences) {
    if (s.rows == 0) continue;
    const std::int64_t first = s.past / kKeys, blocks = block_count(s.past + s.rows) - first;
    constexpr std::int64_t kChunkFloats = 16384;
    const std::int64_t floats = std::min(s.rows, std::int64_t{kKeys}) * shape.head_dim;
    parallel_for(blocks * shape.kv_heads, std::max<std::int64_t>(1, kChunkFloats / floats),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     kernels_.kv_write(write_task(k, v, s, shape, i % shape.kv_heads,
                                                  first + i / shape.kv_heads));
                   }
                 });
  }
}

void OpsCpu::attention(Matrix q, std::span<const SequenceRows> sequences,
                       const AttentionShape& shape, Matrix y) {
  Attention(kernels_, q, sequences, shape, y).run();
}

void OpsCpu::attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                              const AttentionShape& shape, float* scores, std::int64_t keys) {
  for_items(sequences, shape, [&](const Item& item, AttendTask& task, std::int64_t length) {
    thread_local Scratch scratch;
    float* block_scores = scratch.floats(task.rows * (kKeys + task.head_dim));
    float* packed = block_scores + task.rows * kKeys;
    pack_q(q, item, task, packed);
    task.packed_q = packed;
    const auto out_row = [&](std::int64_t r) {
      return scores + (head_of(item, task, r) * q.rows + token_of(item, task, r)) * keys;
    };
    for (std::int64_t block = 0; block < block_count(length); ++block) {
      kernels_.block_scores(task, block, block_scores);
      const Range here = {block * kKeys, std::min(length, (block + 1) * kKeys)};
      for (std::int64_t r = 0; r < task.rows; ++r)
        mask_scores(block_scores, task, r, block, here, out_row(r));
    }
    for (std::int64_t r = 0; r < task.rows; ++r)
      std::fill(out_row(r) + length, out_row(r) + keys, kMinusInfinity);
  });
}

void OpsCpu::attention_mix(const float* weights, std::int64_t keys,
                           std::span<const SequenceRows> sequences, const AttentionShape& shape,
                           Matrix y) {
  for_items(sequences, shape, [&](const Item& item, AttendTask& task, std::int64_t length) {
    thread_local Scratch scratch;
    const std::int64_t columns = value_stride(task.head_dim);
    task.values = scratch.floats(task.rows * (columns + kKeys));
    float* block_weights = task.values + task.rows * columns;
    std::fill(task.values, block_weights, 0.0f);
    for (std::int64_t block = 0; block < block_count(length); ++block) {
      const std::int64_t count = std::min<std::int64_t>(kKeys, length - block * kKeys);
      for (std::int64_t r = 0; r < task.rows; ++r) {
        const float* from =
            weights + (head_of(item, task, r) * y.rows + token_of(item, task, r)) * keys;
        std::copy_n(from + block * kKeys, count, block_weights + r * kKeys);
      }
      kernels_.block_mix(task, block, count, block_weights);
    }
    for (std::int64_t r = 0; r < task.rows; ++r)
      std::copy_n(task.values + r * columns, task.head_dim, columns_of(y, item, task, r));
  });
}

}  // namespace infinilm::cpu
