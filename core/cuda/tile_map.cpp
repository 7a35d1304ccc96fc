#include "cuda/tile_map.hpp"

#include <cstring>

#if !defined(INFINILM_CUDA_EMULATED)
#include <cuda.h>
#endif

#include "cuda/context.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {

#if defined(INFINILM_CUDA_EMULATED)
TileMap map_tiles(const KvView& kv) { return {kv.padded}; }
#else
namespace {

// Asked of the driver, which is not linked: this library has to load without one.
decltype(&cuTensorMapEncodeTiled) find_encoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  constexpr auto kName = "cuTensorMapEncodeTiled";
#if CUDART_VERSION >= 12050
  constexpr unsigned kFirstVersion = 12000;
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(kName, &found, kFirstVersion, cudaEnableDefault, &result);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(kName, &found, cudaEnableDefault, &result);
#endif
  check_cuda(status, "looking for cuTensorMapEncodeTiled in the driver");
  check<Error>(result == cudaDriverEntryPointSuccess,
               "the CUDA driver has no cuTensorMapEncodeTiled, which attention on Hopper needs; "
               "expected a driver for CUDA 12 or later");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
}

}  // namespace

TileMap map_tiles(const KvView& kv) {
  static const auto encode = find_encoder();
  const auto bytes = [](int shift) { return cuuint64_t{1} << shift; };
  constexpr int kAddressBits = 48;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(kv.padded), kKvBlock,
                              bytes(kTileMapFarShift) / kTileMapStep,
                              bytes(kAddressBits - kTileMapFarShift)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(kv.padded) * 2, kTileMapStep,
                                bytes(kTileMapFarShift)};
  const cuuint32_t box[] = {64, kKvBlock, 1, 1}, steps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, reinterpret_cast<void*>(kTileMapBase), sizes,
             strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<Error>(status == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error ", static_cast<int>(status),
               " for rows of ", kv.padded, " elements");
  static_assert(sizeof(TileMap) == sizeof map);
  TileMap found;
  std::memcpy(&found, &map, sizeof map);
  return found;
}
#endif

}  // namespace infinilm::cuda
