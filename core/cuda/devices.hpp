// What the driver reports, and in words what stands in the way.
#pragma once

#include <vector>

#include "infinilm/runtime.hpp"

namespace infinilm::cuda {

// Error if there is no driver, if it is older than the runtime in here, or if it reports no device.
std::vector<CudaDevice> devices();

// Error if there is no such device, or if it is of an architecture that the kernels were not built for.
void check_device(int index);

// The compute capability that the kernels which run on the current device were compiled for, times ten: less than the device's,
// where the driver compiled them from what was built for an older one.
int code_version();

}  // namespace infinilm::cuda
