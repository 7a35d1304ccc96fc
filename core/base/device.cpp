#include "infinilm/device.hpp"

#include <charconv>

#include "infinilm/error.hpp"

namespace infinilm {

Device::Device(std::string_view text) {
  constexpr std::string_view kCuda = "cuda";
  if (text == "cpu") return;
  if (text.starts_with(kCuda)) {
    type_ = DeviceType::CUDA;
    if (text == kCuda) return;
    const char* begin = text.data() + kCuda.size() + 1;
    const char* end = text.data() + text.size();
    if (text[kCuda.size()] == ':' && begin < end && *begin >= '0' && *begin <= '9') {
      const auto [stop, status] = std::from_chars(begin, end, index_);
      if (status == std::errc() && stop == end) return;
    }
  }
  throw ValueError(
      concat("unknown device ", quoted(text), "; expected \"cpu\", \"cuda\" or \"cuda:N\""));
}

std::string Device::str() const {
  return type_ == DeviceType::CPU ? "cpu" : "cuda:" + std::to_string(index_);
}

}  // namespace infinilm
