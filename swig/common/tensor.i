// Tensor and Device. Arrays of the target language come in and go out by typemaps and by what the language adds to Tensor.
%include "attributes.i"

%ignore infinilm::DeviceType;
%ignore infinilm::Device::Device();
%ignore infinilm::Device::Device(DeviceType, int);
%ignore infinilm::Device::Device(DeviceType);
INFINILM_ATTRIBUTE(Device, int, index, index, "Number of the device among those of its type.")
%ignore infinilm::Device::type() const;
%feature("docstring") infinilm::Device::type "\"cpu\" or \"cuda\".";
%extend infinilm::Device {
  %immutable;
  std::string type;
  %mutable;
  /// Whether both are the same device.
  bool equals(const infinilm::Device& other) const { return *$self == other; }
}
%{
static std::string infinilm_Device_type_get(infinilm::Device* self) {
  return self->type() == infinilm::DeviceType::CPU ? "cpu" : "cuda";
}
%}
%include "infinilm/device.hpp"

// Views are made by the language's own arrays.
%ignore infinilm::Buffer;
%ignore infinilm::Tensor::Tensor;
%ignore infinilm::Tensor::borrow;
%ignore infinilm::Tensor::empty(Shape, DataType);
%ignore infinilm::Tensor::buffer;
%ignore infinilm::Tensor::data;
%ignore infinilm::live_buffers;
%ignore infinilm::numel_of;
%ignore infinilm::str_of;
INFINILM_ATTRIBUTE(Tensor, infinilm::Shape, shape, shape, "Number of elements along each dimension.")
INFINILM_ATTRIBUTE(Tensor, infinilm::DataType, dtype, dtype, "Type of the elements.")
%ignore infinilm::Tensor::device() const;
%feature("docstring") infinilm::Tensor::device "Where the memory is.";
%newobject infinilm::Tensor::device;  // attributes of a class are passed by pointer
INFINILM_ATTRIBUTE(Tensor, std::int64_t, ndim, ndim, "Number of dimensions.")
INFINILM_ATTRIBUTE(Tensor, std::size_t, itemsize, itemsize, "Bytes of one element.")
INFINILM_ATTRIBUTE(Tensor, std::size_t, nbytes, nbytes, "Bytes of all elements.")
INFINILM_ATTRIBUTE(Tensor, bool, read_only, read_only, "Whether the memory must not be written to.")
%ignore infinilm::Tensor::strides() const;
%feature("docstring") infinilm::Tensor::strides "Bytes from one element to the next along each dimension.";
%extend infinilm::Tensor {
  %immutable;
  infinilm::Device device;
  infinilm::Shape strides;
  %mutable;
  /// New memory on the CPU, not initialised.
  static infinilm::Tensor empty(const infinilm::Shape& shape, infinilm::DataType dtype = infinilm::DataType::F32) {
    return infinilm::Tensor::empty(shape, dtype);
  }
}
%{
static infinilm::Device* infinilm_Tensor_device_get(infinilm::Tensor* self) {
  return new infinilm::Device(self->device());
}
static infinilm::Shape infinilm_Tensor_strides_get(infinilm::Tensor* self) {
  infinilm::Shape bytes = self->strides();
  for (std::int64_t& stride : bytes) stride *= static_cast<std::int64_t>(self->itemsize());
  return bytes;
}
%}
%include "infinilm/tensor.hpp"
