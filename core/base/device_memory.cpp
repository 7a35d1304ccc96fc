#include "base/device_memory.hpp"

#include <array>
#include <cstdio>

namespace infinilm {

std::string bytes_text(std::size_t count) {
  if (count < 1024) return concat(count, " bytes");
  double value = static_cast<double>(count);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1023.5 && *unit) break;
    value /= 1024;
    unit = next;
  }
  std::array<char, 32> text{};
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  std::snprintf(text.data(), text.size(), "%.*f %s", decimals, value, unit);
  return text.data();
}

std::size_t size_class(std::size_t nbytes) noexcept {
  std::size_t step = 64;
  while (nbytes > step * 8) step *= 2;
  return (nbytes + step - 1) / step * step;
}

OutOfMemory out_of_memory(const Device& device, std::size_t asked, const Room& room) {
  return OutOfMemory(concat("out of memory on ", quoted(device.str()), ": asked for ",
                            bytes_text(asked), ", ", bytes_text(room.free), " of ",
                            bytes_text(room.total), " are free"));
}

std::shared_ptr<Buffer> DeviceMemory::download_later(const void* from, std::size_t nbytes) {
  std::shared_ptr<Buffer> host = Buffer::host(nbytes);
  download(from, host->data(), nbytes);
  return host;
}

}  // namespace infinilm
