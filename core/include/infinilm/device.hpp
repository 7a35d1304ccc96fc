// Where a tensor lives: "cpu", "cuda" or "cuda:1".
#pragma once

#include <string>
#include <string_view>

namespace infinilm {

enum class DeviceType : int { CPU, CUDA };

/// A value. `Device("cuda")` is `Device("cuda:0")`. Throws ValueError for a text that names no device.
class Device {
 public:
  Device() = default;
  Device(DeviceType type, int index = 0) : type_(type), index_(index) {}
  Device(std::string_view text);

  DeviceType type() const noexcept { return type_; }
  int index() const noexcept { return index_; }
  std::string str() const;  ///< "cpu", "cuda:0"

  friend bool operator==(const Device&, const Device&) = default;

 private:
  DeviceType type_ = DeviceType::CPU;
  int index_ = 0;
};

}  // namespace infinilm
