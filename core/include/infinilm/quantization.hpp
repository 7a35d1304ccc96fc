// How the weights of a model are rounded to fewer bits.
#pragma once

#include <cstddef>
#include <string>

namespace infinilm {

/// A value. The linear layers have `bits` a weight, with a scale (float16) for each group of inputs of an output; the
/// embedding and the head have 8, with a scale for each row.
struct Quantization {
  int bits = 0;                   ///< 8 or 4; 0: weights are kept as they are
  std::size_t group_size = 0;     ///< inputs that share a scale; 0: all
  bool int8_activations = false;  ///< what weights are multiplied with is rounded to 8 bits too

  /// `name`: "int8", "int4" or "" for none. `group_size`: a multiple of 32, or 0 for the usual: all inputs for int8, 32 for
  /// int4. `activations`: "int8", or "" to keep them exact. ValueError for anything else.
  Quantization(const std::string& name = "", std::size_t group_size = 0,
               const std::string& activations = "");

  explicit operator bool() const noexcept { return bits != 0; }
  std::string name() const;  ///< "int8", "int4"; "" for none
  std::string str() const;   ///< "int4 in groups of 32", "int8 by rows, int8 activations", "none"

  friend bool operator==(const Quantization&, const Quantization&) = default;
};

}  // namespace infinilm
