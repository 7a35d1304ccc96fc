// What a device can do at best, measured: the devices' side of infinilm/ceilings.hpp.
#pragma once

#include "infinilm/ceilings.hpp"
#include "infinilm/dtype.hpp"

namespace infinilm {

// Made by the device's Ops, which has to outlive it. As in Ceilings.
class DeviceLimits {
 public:
  virtual ~DeviceLimits() = default;
  virtual double read_gbs() = 0;
  virtual Peak peak(DataType dtype) = 0;
};

}  // namespace infinilm
