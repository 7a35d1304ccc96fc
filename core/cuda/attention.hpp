// The cache of keys and values, and attention over it.
//
// A layer's part of a block: for each head its keys [64][padded], then for each head its values [64][padded]; `padded` is head_dim
// up to a multiple of 8, with zeros behind. I8 keeps 64 float32 scales behind the elements of a head.
#pragma once

#include <cstdint>

#include "cuda/context.hpp"
#include "cuda/sequences.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

// One layer of the cache, as kernels see it.
struct KvView {
  std::int64_t offset = 0;  // within a block
  std::int64_t head_bytes = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int padded = 0;
  DataType dtype = DataType::F32;
};

inline constexpr std::int64_t kMostHeadDim = 512;

// ValueError for what no cache here has.
KvView kv_view(const AttentionShape& shape);
KvView kv_view(std::int64_t kv_heads, std::int64_t head_dim, DataType dtype);

// What k is rotated by on the way into the cache, and q with it if it has rows; nothing, if the tables have no memory.
struct Rotation {
  Matrix q;
  Matrix cos;
  Matrix sin;

  bool is_there() const noexcept { return cos.data != nullptr; }
};
// Keys and values [T, K * D] of a step's tokens, on their way into the cache.
struct NewTokens {
  Matrix k;
  Matrix v;
  Rotation rotation;
};
// Writes them at their sequences' positions; with a rotation, q and k are rotated in place first.
void kv_store(Context& context, const NewTokens& tokens, const Sequences& sequences,
              const KvView& kv);
// q as tensor cores take it: rounded to the cache's type, a head's kv.padded columns after the other's.
struct RoundedQueries {
  std::uint16_t* data = nullptr;
  std::int64_t stride = 0;  // elements
};
// What attention begins with: as kv_store, if there are tokens; and q rounded, rotated first if there is a rotation. What q and k are
// afterwards, nobody may ask.
void round_queries(Context& context, Matrix q, const NewTokens& tokens, const Sequences& sequences,
                   const KvView& kv, const RoundedQueries& to);

// Query tokens and heads that a block of threads takes, and the blocks of the cache that it shares with others.
struct AttentionCall {
  Matrix q;
  Matrix y;
  Sequences sequences;
  int tile_count = 0;   // of sequences.tiles
  int tile_tokens = 0;  // of a tile
  bool one_row_each =
      false;  // every sequence asks for one token: what is decided then may not depend on lengths
  std::int64_t longest = 0;  // keys
  AttentionShape shape;
  // With a rotation, q is still to be rotated; with k, they are not in the cache yet. Both are done here; nobody asks for q and k after
  // that. See can_rotate and can_take_tokens.
  NewTokens tokens;
  // The results rounded, if not null; y may have no memory then. See can_round.
  std::uint16_t* rounded = nullptr;
  std::int64_t rounded_stride = 0;
  DataType rounded_type = DataType::BF16;  // or F16
};

// Whether `attention` can round its results.
bool can_round(const AttentionShape& shape);

// Whether `attention` can be given the step's tokens with their rotation, instead of kv_store before it.
bool can_take_tokens(const Context& context, const AttentionShape& shape, bool one_row_each);
// Whether it can be given the rotation of q alone.
bool can_rotate(const Context& context, const AttentionShape& shape, bool one_row_each);
// Tokens of a tile for this shape and these rows.
int tile_tokens(const Context& context, const AttentionShape& shape, bool one_row_each);

// `queries`: memory for q as it is multiplied.
void attention(Context& context, const AttentionCall& call, SplitMemory& memory, Scratch& queries);

// Step by step, as Ops.
void attention_scores(Context& context, Matrix q, const Sequences& sequences,
                      const AttentionShape& shape, float* scores, std::int64_t keys);
void attention_mix(Context& context, const float* weights, std::int64_t keys,
                   const Sequences& sequences, const AttentionShape& shape, Matrix y);

}  // namespace infinilm::cuda
