// The same three calls through pybind11, on the same core: what SWIG's proxies cost is measured against this.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "infinilm/config.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/tensor.hpp"

namespace py = pybind11;

PYBIND11_MODULE(peer, module) {
  py::class_<infinilm::LlamaConfig>(module, "LlamaConfig")
      .def(py::init<>())
      .def_readwrite("hidden_size", &infinilm::LlamaConfig::hidden_size);
  py::class_<infinilm::Tensor>(module, "Tensor", py::buffer_protocol())
      .def_static("empty", [](infinilm::Shape shape) { return infinilm::Tensor::empty(shape); })
      .def_buffer([](infinilm::Tensor& tensor) {
        std::vector<py::ssize_t> strides(tensor.strides().begin(), tensor.strides().end());
        for (auto& stride : strides) stride *= static_cast<py::ssize_t>(tensor.itemsize());
        return py::buffer_info(tensor.data(), sizeof(float), py::format_descriptor<float>::format(),
                               tensor.ndim(), tensor.shape(), strides);
      });
  py::class_<infinilm::HookHandle, std::shared_ptr<infinilm::HookHandle>>(module, "HookHandle");
  py::class_<infinilm::HookRegistry, std::shared_ptr<infinilm::HookRegistry>>(module,
                                                                              "HookRegistry")
      .def(py::init<>())
      .def("register_hook", &infinilm::HookRegistry::register_hook)
      .def("call_hook", &infinilm::HookRegistry::call_hook,
           py::call_guard<py::gil_scoped_release>());
}
