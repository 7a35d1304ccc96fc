// The part of cuBLASLt's C interface that is used, written down here so that neither its headers nor the library are needed
// to build: the numbers are those of its documentation, and have been the same since version 11.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

namespace infinilm::cuda::lt {

using Status = int;  // 0: success
using Handle = struct HandleTag*;
using Description = struct DescriptionTag*;
using Layout = struct LayoutTag*;
using Preference = struct PreferenceTag*;

inline constexpr int kReal16 = 2, kRealBf16 = 14, kReal32 = 0;  // cudaDataType
inline constexpr int kCompute32 = 68;                           // sums in float32, without TF32
inline constexpr int kTransposeA = 3;                           // attribute of a Description
inline constexpr std::int32_t kTransposed = 1;
inline constexpr int kBatchCount = 5, kBatchOffset = 6;  // attributes of a Layout: int32, int64
inline constexpr int kMaxWorkspace = 1;                  // attributes of a Preference
inline constexpr int kMinAlignmentA = 5, kMinAlignmentB = 6, kMinAlignmentC = 7, kMinAlignmentD = 8;

struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  Status status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96);

// The functions, as they are found in the library.
struct Functions {
  Status (*create)(Handle*);
  Status (*description_create)(Description*, int compute, int scale_type);
  Status (*description_set)(Description, int attribute, const void*, std::size_t);
  Status (*layout_create)(Layout*, int type, std::uint64_t rows, std::uint64_t columns,
                          std::int64_t stride);
  Status (*layout_set)(Layout, int attribute, const void*, std::size_t);
  Status (*layout_destroy)(Layout);
  Status (*preference_create)(Preference*);
  Status (*preference_set)(Preference, int attribute, const void*, std::size_t);
  Status (*preference_destroy)(Preference);
  Status (*heuristic)(Handle, Description, Layout a, Layout b, Layout c, Layout d, Preference,
                      int wanted, Heuristic*, int* found);
  Status (*matmul)(Handle, Description, const void* alpha, const void* a, Layout, const void* b,
                   Layout, const void* beta, const void* c, Layout, void* d, Layout,
                   const Algorithm*, void* workspace, std::size_t workspace_size, cudaStream_t);
  const char* (*status_name)(Status);
};

}  // namespace infinilm::cuda::lt
