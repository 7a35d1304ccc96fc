// What a device can do at best, measured: what benchmarks hold the engine's own speed against.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "infinilm/device.hpp"
#include "infinilm/dtype.hpp"

namespace infinilm {

class DeviceLimits;
class Ops;

/// The fastest arithmetic that there is for the products of a number format.
struct Peak {
  std::string instruction;  ///< what reached it: "vdpbf16ps", "cuBLASLt product of 8192"
  double gflops = 0;  ///< 10^9 operations a second; a multiplication and an addition count as two
};

/// The limits of the CPU with the pool's threads, or of a GPU. Each call measures anew, for some ten milliseconds or one reading
/// of the buffer: both limits move with the neighbours of a machine, so measure beside what is compared with them.
class Ceilings {
 public:
  /// `nbytes`: how much is read, at least 1 MiB. Caches help where they do for weights of that size. Throws Error (RuntimeError)
  /// where there is no such device, or not enough memory on it.
  explicit Ceilings(std::size_t nbytes, const Device& device = Device());
  /// 10^9 bytes a second that can be read from a buffer of that size; on a GPU the bytes that a copy of it (of at most 512 MiB)
  /// reads and writes.
  double read_gbs() const;
  /// For products of F32, BF16 or I8 (ValueError for others): of the format's own instruction and of those for wider
  /// ones the fastest. On a GPU what a large product reaches, of F32, BF16 or F16.
  Peak peak(DataType dtype) const;

 private:
  std::shared_ptr<Ops> ops_;
  std::shared_ptr<DeviceLimits> limits_;
};

}  // namespace infinilm
