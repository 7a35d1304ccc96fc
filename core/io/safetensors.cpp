#include "io/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "infinilm/error.hpp"
#include "io/files.hpp"
#include "io/json.hpp"
#include "io/mapped_file.hpp"

namespace infinilm {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr JsonLimits kHeaderLimits{100'000'000, 8};  // the reference's size; depth: ours
constexpr std::size_t kMaxRank = 8;
constexpr const char* kMetadata = "__metadata__";

struct Entry {
  std::string name;
  DataType dtype;
  Shape shape;
  std::size_t begin, end;  // bytes of the data section
};

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    bytes.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
  return bytes;
}

std::string_view header_of(std::string_view file, const std::string& path) {
  check(file.size() >= kLengthBytes, path, ": expected a safetensors file of at least ",
        kLengthBytes, " bytes, found ", file.size());
  const std::uint64_t length = little_endian(file);
  const std::size_t limit = std::min(kHeaderLimits.max_bytes, file.size() - kLengthBytes);
  check(length <= limit, path, ": expected a header of at most ", limit,
        " bytes, found a length of ", length);
  return file.substr(kLengthBytes, static_cast<std::size_t>(length));
}

// What reads one tensor's entry. The reference's JSON library also takes the entry as the list of its
// fields, and a dtype as {"F32": null}; so do we.
class EntryReader {
 public:
  EntryReader(const std::string& path, const std::string& name, const Json& value)
      : where_(concat(path, ": tensor ", quoted(name))), value_(value) {
    check(value.is_object() || (value.is_array() && value.size() == 3), where_,
          ": expected an object with dtype, shape and data_offsets, found ", describe(value));
  }

  Entry read(const std::string& name) const {
    const auto [begin, end] = offsets();
    return Entry{name, dtype(), shape(), begin, end};
  }

 private:
  const Json& field(const char* name, std::size_t index) const {
    if (value_.is_array()) return value_[index];
    const auto found = value_.find(name);
    check(found != value_.end(), where_, ": expected ", name, ", found none");
    return *found;
  }

  DataType dtype() const {
    const Json& value = field("dtype", 0);
    const bool variant = value.is_object() && value.size() == 1 && value.front().is_null();
    const std::string code = variant             ? value.begin().key()
                             : value.is_string() ? value.get<std::string>()
                                                 : std::string();
    const auto dtype = dtype_from_code(code);
    check(dtype.has_value(), where_, ": expected a dtype of the format (F32, BF16, …), found ",
          describe(value));
    return *dtype;
  }

  std::size_t size(const Json& value, const char* what) const {
    check(value.is_number_unsigned() &&
              value.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max(),
          where_, ": expected ", what, " from 0 to 2^63-1, found ", describe(value));
    return value.get<std::size_t>();
  }

  Shape shape() const {
    const Json& value = field("shape", 1);
    check(value.is_array(), where_, ": expected a shape (a list), found ", describe(value));
    check(value.size() <= kMaxRank, where_, ": expected at most ", kMaxRank, " dimensions, found ",
          value.size());
    Shape shape;
    std::int64_t product = 1;  // of the dimensions above 0, as NumPy limits it
    for (const Json& dimension : value) {
      shape.push_back(static_cast<std::int64_t>(size(dimension, "dimensions")));
      check(shape.back() == 0 || !__builtin_mul_overflow(product, shape.back(), &product), where_,
            ": expected at most 2^63-1 elements, found shape ", describe(value));
    }
    return shape;
  }

  std::pair<std::size_t, std::size_t> offsets() const {
    const Json& value = field("data_offsets", 2);
    check(value.is_array() && value.size() == 2, where_,
          ": expected data_offsets [begin, end], found ", describe(value));
    return {size(value[0], "data_offsets"), size(value[1], "data_offsets")};
  }

  std::string where_;
  const Json& value_;
};

std::map<std::string, std::string> metadata_from(const std::string& path, const Json& value) {
  std::map<std::string, std::string> metadata;
  check(value.is_object() || value.is_null(), path,
        ": expected __metadata__ to be an object of strings, found ", describe(value));
  for (const auto& [key, text] : value.items()) {
    check(text.is_string(), path, ": expected __metadata__ to hold strings, found ", quoted(key),
          ": ", describe(text));
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

void check_size(const Entry& entry, const std::string& path, std::size_t data_size) {
  const std::string where = concat(path, ": tensor ", quoted(entry.name));
  check(entry.begin <= entry.end && entry.end <= data_size, where,
        ": expected begin <= end <= ", data_size, " (the data), found data_offsets [", entry.begin,
        ", ", entry.end, "]");
  std::uint64_t bits = 0;
  const auto count = static_cast<std::uint64_t>(numel_of(entry.shape));
  const bool overflow = __builtin_mul_overflow(count, std::uint64_t{bits_of(entry.dtype)}, &bits);
  check(!overflow && bits % 8 == 0 && bits / 8 == entry.end - entry.begin, where, ": expected ",
        overflow ? std::string("more than 2^61")
                 : concat(bits / 8, bits % 8 ? " and a fraction" : ""),
        " bytes for ", code_of(entry.dtype), " ", str_of(entry.shape), ", found ",
        entry.end - entry.begin);
}

// No hole, no overlap, nothing left over.
void check_coverage(std::vector<Entry>& entries, const std::string& path, std::size_t data_size) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::size_t next = 0;
  for (const Entry& entry : entries) {
    check(entry.begin == next, path, ": tensor ", quoted(entry.name),
          ": expected its data to begin at ", next, ", where the one before ends (",
          entry.begin < next ? "an overlap" : "a hole", "), found ", entry.begin);
    next = entry.end;
  }
  check(next == data_size, path, ": expected ", next, " bytes of data, found ", data_size);
}

void check_entry(const TensorEntry& entry, const std::string& path) {
  check(entry.name != kMetadata, "expected the name of a tensor, found ", quoted(entry.name),
        ", which the format reserves");
  check(entry.shape.size() <= kMaxRank, path, ": tensor ", quoted(entry.name),
        ": expected at most ", kMaxRank, " dimensions, found ", entry.shape.size());
  const auto bits = static_cast<std::uint64_t>(numel_of(entry.shape)) * bits_of(entry.dtype);
  check(bits % 8 == 0, path, ": tensor ", quoted(entry.name), ": expected whole bytes, found ",
        str_of(entry.shape), " of ", name_of(entry.dtype));
}

std::size_t bytes_of(const TensorEntry& entry) {
  return static_cast<std::size_t>(numel_of(entry.shape)) * bits_of(entry.dtype) / 8;
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  const std::shared_ptr<MappedFile> file = MappedFile::open(path);
  const std::string_view header = header_of(file->bytes(), path);
  const std::size_t data_at = kLengthBytes + header.size();
  const std::size_t data_size = file->bytes().size() - data_at;

  SafetensorsFile result;
  std::vector<Entry> entries;
  parse_json_members(header, path, kHeaderLimits, [&](const std::string& name, Json&& value) {
    if (name == kMetadata) {
      result.metadata = metadata_from(path, value);
      return;
    }
    entries.push_back(EntryReader(path, name, value).read(name));
    check_size(entries.back(), path, data_size);
  });
  check_coverage(entries, path, data_size);

  // Nobody writes through it: the tensors are read-only, and so are the pages.
  void* base = const_cast<char*>(file->bytes().data());
  const auto buffer =
      std::make_shared<Buffer>(base, file->bytes().size(), Device(), file, Buffer::Origin::File);
  for (Entry& entry : entries) {
    Tensor tensor(buffer, entry.dtype, std::move(entry.shape), {}, data_at + entry.begin, true);
    result.tensors.emplace(std::move(entry.name), std::move(tensor));
  }
  return result;
}

std::map<std::string, Tensor> load_safetensors(const std::string& path) {
  return read_safetensors(path).tensors;
}

std::map<std::string, std::string> safetensors_metadata(const std::string& path) {
  return read_safetensors(path).metadata;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  for (const TensorEntry& entry : entries) check_entry(entry, path);
  // Wide elements first keeps every tensor aligned to its own width.
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(bits_of(b.dtype), a.name) < std::pair(bits_of(a.dtype), b.name);
  });
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  for (const TensorEntry& entry : entries) {
    const std::size_t begin = std::exchange(nbytes_, nbytes_ + bytes_of(entry));
    header[entry.name] = {{"dtype", code_of(entry.dtype)},
                          {"shape", entry.shape},
                          {"data_offsets", {begin, nbytes_}}};
    extents_[entry.name] = {begin, nbytes_};
  }
  std::string text = dump_json(header, false);
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  check(text.size() <= kHeaderLimits.max_bytes, path, ": expected a header of at most ",
        kHeaderLimits.max_bytes, " bytes, found ", text.size());
  begin_ = kLengthBytes + text.size();
  file_.write(little_endian(text.size()).data(), kLengthBytes);
  file_.write(text.data(), text.size());
}

void SafetensorsWriter::write(const std::string& name, std::size_t offset, const void* data,
                              std::size_t nbytes) {
  const auto found = extents_.find(name);
  check<Error>(found != extents_.end(), "no tensor was announced under the name ", quoted(name));
  const Extent& extent = found->second;
  check<Error>(offset + nbytes <= extent.end - extent.begin, quoted(name), ": expected at most ",
               extent.end - extent.begin, " bytes, found ", offset + nbytes);
  file_.write_at(begin_ + extent.begin + offset, data, nbytes);
  written_ += nbytes;
}

void SafetensorsWriter::write(const std::string& name, const Tensor& tensor) {
  write(name, 0, tensor.data(), tensor.nbytes());
}

void SafetensorsWriter::commit() {
  check<Error>(written_ == nbytes_, "expected ", nbytes_, " bytes of tensors, found ", written_);
  file_.commit();
}

void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors)
    entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor.to(Device()).contiguous());
  writer.commit();
}

}  // namespace infinilm
