// Files of tensors: safetensors, and HuggingFace directories of them.
#pragma once

#include <map>
#include <string>

#include "infinilm/tensor.hpp"

namespace infinilm {

/// Every tensor of a safetensors file by name: read-only views of the mapped file, which stays mapped as long as one of
/// them is held; nothing is copied. Data is not necessarily aligned to its dtype. The file must not be truncated
/// meanwhile. What the `safetensors` package refuses is refused, and by name: duplicate names, rank over 8,
/// header nesting over 8. Tensors of sub-byte dtypes (F4, F6) are carried as such, with their shape in elements.
/// ValueError (file, tensor, expected, found), FileNotFoundError, OsError.
std::map<std::string, Tensor> load_safetensors(const std::string& path);

/// The text entries of the file's `__metadata__`; empty without one. Errors as above.
std::map<std::string, std::string> safetensors_metadata(const std::string& path);

/// Writes a file that `load_safetensors` and the `safetensors` package read. Atomic: a temporary file beside `path`
/// is renamed over it when complete, so that a failure (OsError, e.g. no space left) leaves what was there.
/// Tensors are written row-major, wide elements first and then by name. ValueError for a name
/// that is no valid UTF-8 or is "__metadata__".
void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

/// Every tensor of a HuggingFace directory by its HF name: `model.safetensors`, or else the shards that
/// `model.safetensors.index.json` names (plain file names inside of the directory). Errors as above; FileNotFoundError, with
/// the way out, for a directory that holds only pytorch_model.bin.
std::map<std::string, Tensor> load_checkpoint(const std::string& directory);

}  // namespace infinilm
