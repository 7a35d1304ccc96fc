// Settings of the process, and what is alive in it.
%immutable infinilm::CudaDevice::index;
%immutable infinilm::CudaDevice::name;
%immutable infinilm::CudaDevice::compute_capability;
%immutable infinilm::CudaDevice::memory;
%nodefaultctor infinilm::CudaDevice;
%include "infinilm/runtime.hpp"

%inline %{
/// How many buffers, hook registrations and models the core holds at this moment: for leak tests.
std::map<std::string, std::int64_t> live_objects() {
  return {{"buffers", infinilm::live_buffers()},
          {"hook_entries", infinilm::live_hook_entries()},
          {"models", infinilm::live_models()}};
}
/// Every element type: its code ("BF16") and its name ("bfloat16").
std::map<std::string, std::string> data_types() {
  std::map<std::string, std::string> names;
  for (int i = 0; i < infinilm::kDataTypeCount; ++i) {
    const auto dtype = static_cast<infinilm::DataType>(i);
    names.emplace(infinilm::code_of(dtype), infinilm::name_of(dtype));
  }
  return names;
}
%}
