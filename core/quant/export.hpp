// A quantised module as tensors of compressed-tensors' "pack-quantized": what import_compressed.cpp reads, to the last bit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/safetensors.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm {

// Names, dtypes and shapes of the tensors of `module`. `ordered`: it has an input_order.
std::vector<TensorEntry> exported_tensors(const std::string& module, std::int64_t outputs,
                                          std::int64_t inputs, const QuantFormat& format,
                                          bool ordered);

// Writes them. ValueError for a scale that is not finite, which nobody would read again.
void export_module(SafetensorsWriter& file, const std::string& module,
                   const QuantizedMatrix& matrix);

}  // namespace infinilm
