// The core's classes as SWIG's proxies. Declared here so that lists and dicts of them can be made; defined in proxies.i,
// where SWIG's type table is known.
#pragma once

#include <string>

#include "infinilm/capture.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"
#include "infinilm/tensor.hpp"
#include "support/object.hpp"

namespace infinilm_py {

// A proxy of its own for a copy of the value.
PyObject* from_value(const infinilm::Tensor& value);
PyObject* from_value(const infinilm::Captured& value);
PyObject* from_value(const infinilm::CudaDevice& value);
PyObject* from_value(const infinilm::HookPoint& value);
PyObject* from_value(const infinilm::HookPointPattern& value);
PyObject* from_value(const infinilm::ParameterInfo& value);
PyObject* from_value(const infinilm::StepSequence& value);

// A Tensor, an array, or anything with __dlpack__ or __array_interface__; shares its memory.
bool to_value(PyObject* object, const std::string& field, infinilm::Tensor& value);
// A Device or its name.
bool to_value(PyObject* object, const std::string& field, infinilm::Device& value);

}  // namespace infinilm_py
