#include "infinilm/ceilings.hpp"

#include "infinilm/error.hpp"
#include "ops/device_limits.hpp"
#include "ops/ops.hpp"

namespace infinilm {
namespace {

constexpr std::size_t kLeast = std::size_t{1} << 20;

}  // namespace

Ceilings::Ceilings(std::size_t nbytes, const Device& device) {
  check(nbytes >= kLeast, "expected at least ", kLeast, " bytes to read, found ", nbytes);
  ops_ = ops_for(device);
  limits_ = ops_->limits(nbytes);
}

double Ceilings::read_gbs() const { return limits_->read_gbs(); }

Peak Ceilings::peak(DataType dtype) const { return limits_->peak(dtype); }

}  // namespace infinilm
