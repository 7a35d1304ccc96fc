// Elements of the cache in kernels.
#pragma once

#include "cuda/attention.hpp"
#include "cuda/device.cuh"

namespace infinilm::cuda {

inline constexpr int kKeys = 64;  // of a block
static_assert(kKeys == kKvBlock);

template <class Byte>  // const or not
__device__ __forceinline__ Byte* keys_of(const KvView& kv, Byte* block, int head) {
  return block + kv.offset + head * kv.head_bytes;
}
template <class Byte>  // const or not
__device__ __forceinline__ Byte* values_of(const KvView& kv, Byte* block, int head) {
  return block + kv.offset + (kv.kv_heads + head) * kv.head_bytes;
}
__device__ __forceinline__ float scale_of(const KvView& kv, const std::byte* head, int token) {
  return reinterpret_cast<const float*>(head + kKeys * kv.padded)[token];
}

// Element d of a token, not yet scaled.
__device__ __forceinline__ float element_of(const KvView& kv, const std::byte* head, int token,
                                            int d) {
  const int i = token * kv.padded + d;
  switch (kv.dtype) {
    case DataType::F32:
      return reinterpret_cast<const float*>(head)[i];
    case DataType::BF16:
      return bf16_to_float(reinterpret_cast<const std::uint16_t*>(head)[i]);
    case DataType::F16:
      return f16_to_float(reinterpret_cast<const std::uint16_t*>(head)[i]);
    default:
      return static_cast<float>(reinterpret_cast<const std::int8_t*>(head)[i]);
  }
}

// The sequence that a row of the step belongs to; -1: none.
__device__ __forceinline__ int sequence_of(const Sequences& sequences, int row) {
  return row < sequences.rows ? sequences.sequence_of_row[row] : -1;
}

// Keys that a token at `position` sees: [first, position].
__device__ __forceinline__ int first_key(int position, int window) {
  return window > 0 && position - window + 1 > 0 ? position - window + 1 : 0;
}

}  // namespace infinilm::cuda
