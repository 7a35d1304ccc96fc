// What this machine can do at best, measured: what benchmarks hold the engine's own speed against.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "infinilm/dtype.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

/// The fastest arithmetic that the instruction set in use has for the products of a number format.
struct Peak {
  std::string instruction;  ///< such as "vdpbf16ps"
  double gflops = 0;  ///< 10^9 operations a second; a multiplication and an addition count as two
};

/// The limits of the machine with the pool's threads. Each call measures anew, for some ten milliseconds or one reading
/// of the buffer: both limits move with the neighbours of a machine, so measure beside what is compared with them.
class Ceilings {
 public:
  /// `nbytes`: how much is read, at least 1 MiB. A processor's caches help where they do for weights of that size.
  explicit Ceilings(std::size_t nbytes);
  /// 10^9 bytes a second that can be read from a buffer of that size.
  double read_gbs() const;
  /// For products of F32, BF16 or I8 (ValueError for others): of the format's own instruction and of those for wider
  /// ones the fastest.
  Peak peak(DataType dtype) const;

 private:
  std::shared_ptr<Buffer> buffer_;
};

}  // namespace infinilm
