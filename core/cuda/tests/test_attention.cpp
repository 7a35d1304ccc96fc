// Attention over caches of every format, and the way into them.
#include "cuda/tests/attention_cases.hpp"
#include "infinilm/error.hpp"

using namespace cuda_tests;

TEST(attention) {
  for (const DataType dtype : {kF32, kBf16, kF16, DataType::I8}) {
    if (is_quick() && (dtype == kF16 || dtype == kF32)) continue;
    check_attention({4, 2, 12, 0, dtype, {5}, {65}});
    check_attention({8, 2, 64, 0, dtype, {1}, {200}});
    check_attention({8, 2, 64, 0, dtype, {1, 1, 1}, {0, 63, 130}});
    check_attention({4, 2, 64, 0, dtype, {1, 1}, {700, 511}});
    check_attention({8, 2, 64, 50, dtype, {1, 1}, {170, 20}});
    check_attention({3, 1, 22, 9, dtype, {40, 1, 3}, {110, 64, 0}});
    check_attention({4, 4, 128, 0, dtype, {70}, {0}});
    check_attention({4, 1, 128, 33, dtype, {20}, {130}});
    check_attention({1, 1, 80, 0, dtype, {1}, {0}});
    check_attention({2, 1, 96, 0, dtype, {17}, {64}});
    check_attention({2, 1, 256, 0, dtype, {3}, {70}});
    check_attention({20, 1, 16, 0, dtype, {7, 1}, {0, 70}});
    check_attention({40, 1, 32, 0, dtype, {1}, {70}});
    check_attention({7, 1, 128, 0, dtype, {1, 1}, {63, 64}});
    check_attention({12, 1, 96, 70, dtype, {1}, {300}});
    check_attention({2, 2, 256, 0, dtype, {1, 1}, {200, 3}});
    check_attention({2, 1, 15, 0, dtype, {1, 4}, {70, 2}});
  }
  for (const DataType dtype : {kBf16, kF16}) {  // several blocks of threads, and of keys for each
    if (is_quick() && dtype == kF16) continue;
    check_fused_attention({2, 1, 64, 0, dtype, {80}, {260}});
    check_fused_attention({1, 1, 128, 150, dtype, {70, 3}, {330, 0}});
    check_fused_attention(
        {1, 1, 64, 0, dtype, {256}, {64}});  // blocks that end before the sequence
  }
  // Heads of other sizes and numbers: some not in whole groups of eight columns, some in more rows than a tile has.
  for (const DataType dtype : {kBf16, kF16}) {
    if (is_quick() && dtype == kF16) continue;
    check_fused_attention({3, 1, 33, 0, dtype, {60}, {5}});
    check_fused_attention({5, 1, 40, 20, dtype, {50}, {70}});
    check_fused_attention({7, 1, 72, 0, dtype, {40, 2}, {0, 130}});
    check_fused_attention({20, 1, 80, 0, dtype, {15}, {60}});
    check_fused_attention({200, 1, 120, 0, dtype, {2}, {64}});
  }
  CHECK_THROWS(ValueError, "kv_cache_dtype", device().kv_block_bytes(1, 8, DataType::F64));
}
