// Sequences with a past in a cache of their own, on either device.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/tests/two_devices.hpp"

namespace cuda_tests {

struct AttentionCase {
  std::int64_t heads, kv_heads, head_dim, window;
  DataType dtype;
  std::vector<std::int64_t> rows, past;  // of each sequence
};

// The blocks of some sequences, full of NaN.
class Cache {
 public:
  Cache(Ops& ops, const AttentionCase& c, DataType dtype)
      : shape_{c.heads, c.kv_heads, c.head_dim, c.window, 0.3f, dtype, 0} {
    const std::size_t layer = ops.kv_block_bytes(c.kv_heads, c.head_dim, dtype);
    shape_.kv_offset = layer;  // as if there were a layer in front
    const std::vector<std::byte> poison(2 * layer, std::byte{0xff});
    std::int64_t row = 0;
    blocks_.resize(c.rows.size());
    for (std::size_t i = 0; i < c.rows.size(); ++i) {
      for (std::int64_t t = 0; t < c.past[i] + c.rows[i]; t += kKvBlock) {
        memory_.push_back(ops.allocate(2 * layer));
        ops.upload(poison.data(), memory_.back()->data(), poison.size());
        blocks_[i].push_back(memory_.back()->data());
      }
      past_.push_back({row, c.past[i], 0, blocks_[i]});
      now_.push_back({row, c.rows[i], c.past[i], blocks_[i]});
      row += std::max(c.rows[i], c.past[i]);
    }
  }
  const AttentionShape& shape() const { return shape_; }
  const std::vector<SequenceRows>& past() const { return past_; }
  const std::vector<SequenceRows>& now() const { return now_; }

 private:
  AttentionShape shape_;
  std::vector<std::shared_ptr<Buffer>> memory_;
  std::vector<std::vector<std::byte*>> blocks_;
  std::vector<SequenceRows> past_, now_;
};

// Stored: looked at when the tokens are in the cache; Multiplied: by a matrix; Seen: and looked at before.
enum class Way { Fused, Stored, Steps, Multiplied, Seen };

// Writes the past, then this step through rope and kv_write, then asks.
Floats attend(Ops& ops, const AttentionCase& c, DataType cached, Way way);

// Against the CPU's: the operation for it; that, and every step by itself.
void check_fused_attention(const AttentionCase& c);
void check_attention(const AttentionCase& c);

}  // namespace cuda_tests
