// Which kernel, and how many blocks of threads share a tile.
#include <algorithm>

#include "cuda/attention.cuh"

namespace infinilm::cuda {
namespace {

constexpr int kTensorRows = 64;
// To merge splits takes tensor cores longer than to go through so many blocks of the cache.
constexpr int kLeastBlocks = 2;

int tile_rows(const Context& context, const AttentionShape& shape, bool one_row_each) {
  if (!has_tensor_attention(shape)) return kFloatRows;
  if (one_row_each) return kTokenHeads;
  return has_wide_attention(context, shape) ? kWideRows : kTensorRows;
}

}  // namespace

bool can_take_tokens(const Context& context, const AttentionShape& shape, bool one_row_each) {
  return one_row_each ? has_tensor_attention(shape) : has_wide_attention(context, shape);
}

bool can_round(const AttentionShape& shape) { return has_tensor_attention(shape); }

bool can_rotate(const Context& context, const AttentionShape& shape, bool one_row_each) {
  return !one_row_each && has_tensor_attention(shape) && !has_wide_attention(context, shape);
}

int tile_tokens(const Context& context, const AttentionShape& shape, bool one_row_each) {
  if (one_row_each) return 1;
  const auto group = static_cast<int>(shape.heads / shape.kv_heads);
  return std::max(1, tile_rows(context, shape, one_row_each) / group);
}

namespace {

// What does not depend on how the work is divided.
AttentionTask task_of(const AttentionCall& call, int rows) {
  const AttentionShape& shape = call.shape;
  AttentionTask task{};
  task.q = call.q.data;
  task.y = call.y.data;
  task.q_stride = call.q.stride;
  task.y_stride = call.y.stride;
  task.rounded = call.rounded;
  task.rounded_stride = call.rounded_stride;
  task.rounds_to_f16 = call.rounded_type == DataType::F16;
  task.sequences = call.sequences;
  task.kv = kv_view(shape);
  task.group = static_cast<int>(shape.heads / shape.kv_heads);
  task.tile_heads = std::min(task.group, rows);
  task.tile_tokens = call.tile_tokens;
  task.window = static_cast<int>(shape.window);
  const auto places =
      reinterpret_cast<std::uintptr_t>(task.y) | 2 * reinterpret_cast<std::uintptr_t>(task.rounded);
  const auto columns = task.y_stride | task.rounded_stride | shape.head_dim;
  task.fours = places % 16 == 0 && columns % 4 == 0;
  task.scale = shape.scale;
  task.k = call.tokens.k.data;
  task.v = call.tokens.v.data;
  task.k_stride = call.tokens.k.stride;
  task.v_stride = call.tokens.v.stride;
  task.cos = call.tokens.rotation.cos.data;
  task.sin = call.tokens.rotation.sin.data;
  task.cos_stride = call.tokens.rotation.cos.stride;
  task.sin_stride = call.tokens.rotation.sin.stride;
  return task;
}

// How many blocks of threads share the keys of a tile.
std::int64_t splits_of(const Context& context, const AttentionCall& call, std::int64_t tiles,
                       bool wide) {
  // Blocks of threads that are on a multiprocessor at once.
  const int together = wide ? 1 : 2;
  std::int64_t splits = (together * context.multiprocessors() + tiles - 1) / tiles;
  if (call.one_row_each) {
    // What was recorded is run again for longer sequences: lengths must not count. Blocks that wait for their turn would
    // cost more than they give.
    splits = std::max<std::int64_t>(context.multiprocessors() / tiles, 2);
  } else {
    const std::int64_t blocks = (call.longest + kKeys - 1) / kKeys;
    splits = std::min(splits, (blocks + kLeastBlocks - 1) / kLeastBlocks);
  }
  return std::clamp<std::int64_t>(splits, 1, kMostSplits);
}

// What attend_wide multiplies, and the tokens' way into the cache if that is to be done.
void prepare_queries(Context& context, const AttentionCall& call, Scratch& memory,
                     AttentionTask& task) {
  const std::int64_t stride = call.shape.heads * task.kv.padded;
  auto* const queries = reinterpret_cast<std::uint16_t*>(
      context.scratch(memory, static_cast<std::size_t>(call.q.rows * stride) * 2));
  round_queries(context, call.q, call.tokens, call.sequences, task.kv, {queries, stride});
  task.queries = queries;
  task.queries_stride = stride;
}

}  // namespace

void attention(Context& context, const AttentionCall& call, SplitMemory& memory, Scratch& queries) {
  if (call.tile_count == 0) return;
  const AttentionShape& shape = call.shape;
  const int rows = tile_rows(context, shape, call.one_row_each);
  const bool wide = !call.one_row_each && has_wide_attention(context, shape);
  AttentionTask task = task_of(call, rows);
  task.least_blocks = call.one_row_each && has_tensor_attention(shape) ? kLeastBlocks : 1;
  task.step_blocks = wide ? kWideBlocks : 1;
  const int chunks = (task.group + task.tile_heads - 1) / task.tile_heads;
  const std::int64_t tiles = std::int64_t{call.tile_count} * shape.kv_heads * chunks;
  const std::int64_t splits = splits_of(context, call, tiles, wide);
  const auto count = static_cast<std::size_t>(tiles);
  if (splits > 1) {
    task.partial = reinterpret_cast<float*>(context.scratch(
        memory.partial,
        count * static_cast<std::size_t>(splits * rows * partial_stride(task.kv.padded)) * 4));
  }
  if (splits > 1 || wide) {
    task.arrived = reinterpret_cast<unsigned*>(
        context.cleared_scratch(memory.arrived, (count + 1) * sizeof(unsigned)));
  }
  task.tiles = static_cast<int>(tiles);
  task.splits = static_cast<int>(splits);
  if (wide) {
    task.drawn = task.arrived + tiles;
    prepare_queries(context, call, queries, task);
    return attend_wide(context, task);
  }
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(splits));
  if (!has_tensor_attention(shape)) return attend_in_floats(context, task, grid);
  if (call.one_row_each) return attend_token(context, task, grid);
  attend_on_tensor_cores(context, task, grid);
}

}  // namespace infinilm::cuda
