// DLPack: tensors to and from every array library, without a copy.
// The structures are those of https://dmlc.github.io/dlpack (ABI 1.0); the older one has no version and no flags.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "infinilm/error.hpp"
#include "infinilm/streams.hpp"
#include "infinilm/tensor.hpp"
#include "support/object.hpp"

namespace infinilm_py::dlpack {

struct DeviceTag {
  std::int32_t type;
  std::int32_t index;
};
struct ElementType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct View {
  void* data;
  DeviceTag device;
  std::int32_t ndim;
  ElementType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};
struct Managed {
  View view;
  void* context;
  void (*deleter)(Managed*);
};
struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  View view;
};
inline constexpr std::uint64_t kReadOnly = 1;
inline constexpr std::uint64_t kIsCopied = 2;

// What a capsule of either kind is called before and after somebody took it.
template <class M>
struct Names;
template <>
struct Names<Managed> {
  static constexpr const char* fresh = "dltensor";
  static constexpr const char* used = "used_dltensor";
};
template <>
struct Names<ManagedVersioned> {
  static constexpr const char* fresh = "dltensor_versioned";
  static constexpr const char* used = "used_dltensor_versioned";
};

struct TypeRow {
  infinilm::DataType dtype;
  ElementType type;
};
inline constexpr TypeRow kTypes[] = {
    {infinilm::DataType::F32, {2, 32, 1}},         {infinilm::DataType::F16, {2, 16, 1}},
    {infinilm::DataType::BF16, {4, 16, 1}},        {infinilm::DataType::F64, {2, 64, 1}},
    {infinilm::DataType::I8, {0, 8, 1}},           {infinilm::DataType::U8, {1, 8, 1}},
    {infinilm::DataType::I16, {0, 16, 1}},         {infinilm::DataType::U16, {1, 16, 1}},
    {infinilm::DataType::I32, {0, 32, 1}},         {infinilm::DataType::U32, {1, 32, 1}},
    {infinilm::DataType::I64, {0, 64, 1}},         {infinilm::DataType::U64, {1, 64, 1}},
    {infinilm::DataType::BOOL, {6, 8, 1}},         {infinilm::DataType::C64, {5, 64, 1}},
    {infinilm::DataType::F8_E4M3, {10, 8, 1}},     {infinilm::DataType::F8_E5M2, {12, 8, 1}},
    {infinilm::DataType::F8_E4M3FNUZ, {11, 8, 1}}, {infinilm::DataType::F8_E5M2FNUZ, {13, 8, 1}},
    {infinilm::DataType::F8_E8M0, {14, 8, 1}},
};

// A refusal that DLPack's consumers expect as BufferError.
[[noreturn]] inline void refuse(const std::string& text) {
  const Owned object(PyUnicode_FromString(text.c_str()));
  PyErr_SetObject(PyExc_BufferError, object.get());
  throw PythonError::fetch();
}

inline ElementType element_type(infinilm::DataType dtype) {
  for (const TypeRow& row : kTypes) {
    if (row.dtype == dtype) return row.type;
  }
  refuse(infinilm::concat("DLPack cannot carry ", infinilm::name_of(dtype)));
}

inline infinilm::DataType dtype_of(ElementType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type.code == type.code && row.type.bits == type.bits && type.lanes == 1)
      return row.dtype;
  }
  refuse(infinilm::concat("expected an element type that infinilm knows, found DLPack's code ",
                          int{type.code}, " with ", int{type.bits}, " bits and ", type.lanes,
                          " lanes"));
}

// DLPack's numbers of devices whose memory the CPU or a CUDA device reads.
enum : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };

inline DeviceTag device_tag(const infinilm::Device& device) {
  return {device.type() == infinilm::DeviceType::CPU ? kCpu : kCuda, device.index()};
}

inline infinilm::Device device_of(const DeviceTag& tag) {
  if (tag.type == kCpu || tag.type == kCudaHost) return infinilm::Device();
  if (tag.type == kCuda || tag.type == kCudaManaged)
    return infinilm::Device(infinilm::DeviceType::CUDA, tag.index);
  refuse(infinilm::concat("expected memory of the cpu or of CUDA, found DLPack's device type ",
                          tag.type));
}

// What an exported capsule points to: keeps the tensor and its shape alive. `stream`: the consumer's, which may still be at
// work on the memory when it lets go of it; 0 for none.
template <class M>
struct Exported {
  infinilm::Tensor tensor;
  infinilm::Shape shape;
  infinilm::Shape strides;
  std::uintptr_t stream;
  M managed{};

  Exported(infinilm::Tensor source, std::uintptr_t consumer)
      : tensor(std::move(source)),
        shape(tensor.shape()),
        strides(tensor.strides()),
        stream(consumer) {
    managed.context = this;
    managed.deleter = [](M* m) { delete static_cast<Exported*>(m->context); };
    managed.view = {tensor.data(),
                    device_tag(tensor.device()),
                    static_cast<std::int32_t>(shape.size()),
                    element_type(tensor.dtype()),
                    shape.data(),
                    strides.data(),
                    0};
    // Last, since nobody destroys what was not made.
    if (stream != 0) infinilm::lend(tensor, stream);
  }
  ~Exported() {
    if (stream != 0) infinilm::take_back(tensor, stream);
  }
};

template <class M>
void drop_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Names<M>::fresh)) return;
  M* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, Names<M>::fresh));
  managed->deleter(managed);
}

template <class M>
PyObject* capsule_of(Exported<M>* exported) {
  PyObject* capsule = PyCapsule_New(&exported->managed, Names<M>::fresh, drop_unused<M>);
  if (!capsule) delete exported;
  return capsule;
}

// The consumer's `stream` waits for what the engine still has to do on the memory; 0: it asked for no order.
inline PyObject* to_capsule(const infinilm::Tensor& tensor, bool versioned, bool copy,
                            std::uintptr_t stream) {
  for (const std::int64_t stride : tensor.strides()) {
    if (stride < 0)
      refuse("a tensor with negative strides cannot be exported: make it contiguous() first");
  }
  infinilm::Tensor source = copy ? tensor.clone() : tensor;
  if (!versioned) {
    if (source.read_only()) {
      refuse("a read-only tensor needs a consumer of DLPack 1.0 (max_version=(1, 0)) or copy=True");
    }
    return capsule_of(new Exported<Managed>(std::move(source), stream));
  }
  auto* exported = new Exported<ManagedVersioned>(std::move(source), stream);
  exported->managed.version = {1, 0};
  exported->managed.flags = (exported->tensor.read_only() ? kReadOnly : 0) | (copy ? kIsCopied : 0);
  return capsule_of(exported);
}

// Ends what the engine still does with memory that goes back to its producer.
inline void settle(const infinilm::Device& device) noexcept {
  if (device.type() == infinilm::DeviceType::CPU) return;
  try {
    infinilm::synchronize(device);
  } catch (const std::exception&) {
    // The device is lost: nothing is at work any more.
  }
}

// Takes the memory over; the producer's deleter runs when the last tensor that uses it is gone.
template <class M>
std::optional<infinilm::Tensor> take(PyObject* capsule, bool read_only) {
  if (!PyCapsule_IsValid(capsule, Names<M>::fresh)) return std::nullopt;
  M* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, Names<M>::fresh));
  const View& view = managed->view;
  if constexpr (std::is_same_v<M, ManagedVersioned>) {
    if (managed->version.major != 1) {
      refuse(infinilm::concat("expected DLPack 1.x, found version ", managed->version.major));
    }
    read_only = (managed->flags & kReadOnly) != 0;
  }
  const infinilm::DataType dtype = dtype_of(view.dtype);
  const infinilm::Device device = device_of(view.device);
  infinilm::stream_of(device);  // throws if the device cannot be used here
  infinilm::Shape shape(view.shape, view.shape + view.ndim), strides;
  if (view.strides) strides.assign(view.strides, view.strides + view.ndim);
  if (PyCapsule_SetName(capsule, Names<M>::used) < 0) throw PythonError::fetch();
  std::shared_ptr<void> owner(managed, [device](void* p) {
    if (shutting_down) return;
    settle(device);
    const Gil gil;  // the producer may be a Python library
    auto* m = static_cast<M*>(p);
    if (m->deleter) m->deleter(m);
  });
  auto* data = static_cast<std::byte*>(view.data) + view.byte_offset;
  return infinilm::Tensor::borrow(data, dtype, std::move(shape), std::move(strides), device,
                                  std::move(owner), read_only);
}

inline infinilm::Tensor from_capsule(PyObject* capsule) {
  if (auto tensor = take<ManagedVersioned>(capsule, false)) return *std::move(tensor);
  if (auto tensor = take<Managed>(capsule, false)) return *std::move(tensor);
  throw infinilm::ValueError("expected a DLPack capsule that nobody has taken yet");
}

}  // namespace infinilm_py::dlpack
