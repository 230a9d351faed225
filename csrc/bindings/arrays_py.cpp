// Arrays for Python: the quick way for what is plainly right. See arrays_py.hpp.
#include "bindings/arrays_py.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/assert.hpp"
#include "bindings/register_py.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

// The type of a buffer's elements, or -1. Letters say the kind, the item size says the width: 'l'
// has 4 bytes here and 8 there.
int dtype_of(const Py_buffer& buffer) {
  std::string_view format = buffer.format == nullptr ? "B" : buffer.format;
  if (!format.empty() && std::string_view("@=<").find(format[0]) != std::string_view::npos) {
    format.remove_prefix(1);
  }
  if (format.size() != 1) return -1;
  const auto is_one_of = [&](const char* letters) { return std::strchr(letters, format[0]); };
  const auto bytes = buffer.itemsize;
  if (is_one_of("efd")) {
    return bytes == 4 ? PYCCL_F32 : bytes == 8 ? PYCCL_F64 : bytes == 2 ? PYCCL_F16 : -1;
  }
  if (is_one_of("bhilqn")) {
    return bytes == 4   ? PYCCL_I32
           : bytes == 8 ? PYCCL_I64
           : bytes == 2 ? PYCCL_I16
           : bytes == 1 ? PYCCL_I8
                        : -1;
  }
  if (is_one_of("BHILQN")) {
    return bytes == 4   ? PYCCL_U32
           : bytes == 8 ? PYCCL_U64
           : bytes == 2 ? PYCCL_U16
           : bytes == 1 ? PYCCL_U8
                        : -1;
  }
  return -1;
}

bool same_shape(const Py_buffer& one, const Py_buffer& other) {
  return one.ndim == other.ndim && std::equal(one.shape, one.shape + one.ndim, other.shape);
}

}  // namespace

const Py_buffer* HeldBuffers::hold(py::handle object, int flags) {
  PYCCL_ASSERT(buffers_.size() < buffers_.capacity());
  Py_buffer& buffer = buffers_.emplace_back();
  if (PyObject_GetBuffer(object.ptr(), &buffer, flags) == 0) return &buffer;
  PyErr_Clear();
  buffers_.pop_back();
  return nullptr;
}

void HeldBuffers::release_newest() {
  // Out of the list first: releasing may run Python code.
  Py_buffer buffer = buffers_.back();
  buffers_.pop_back();
  PyBuffer_Release(&buffer);
}

void HeldBuffers::release() {
  while (!buffers_.empty()) release_newest();
}

Arrays::Arrays(std::size_t count_max, Rank world) : count_max_(count_max) {
  request_.world = world;
  request_.arrays.reserve(count_max);
  buffers_.reserve(2 * count_max);
}

// None if it is not plainly right. A `dtype` of -1 becomes that of the buffer.
const Py_buffer* Arrays::hold(py::handle object, bool writable, int& dtype) {
  constexpr int readable = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;
  const Py_buffer* held = buffers_.hold(object, writable ? readable | PyBUF_WRITABLE : readable);
  if (held == nullptr) return nullptr;
  const int found = dtype < 0 ? dtype_of(*held) : dtype;
  if (found >= 0 && found < PYCCL_DTYPE_COUNT &&
      static_cast<std::size_t>(held->itemsize) ==
          kernels::size_of(static_cast<kernels::DataType>(found))) {
    dtype = found;
    return held;
  }
  buffers_.release_newest();
  return nullptr;
}

bool Arrays::add(py::handle input, py::handle output, int dtype) {
  if (request_.arrays.size() == count_max_) return false;
  const bool in_place = output.is_none();
  int source_dtype = dtype;
  const Py_buffer* source = hold(input, in_place, source_dtype);
  if (source == nullptr) return false;
  const Py_buffer* target = source;
  if (!in_place) {
    int target_dtype = dtype;
    target = hold(output, true, target_dtype);
    if (target == nullptr || target_dtype != source_dtype || !same_shape(*source, *target)) {
      if (target != nullptr) buffers_.release_newest();
      buffers_.release_newest();
      return false;
    }
  }
  const auto count = static_cast<std::uint64_t>(source->len / source->itemsize);
  request_.arrays.push_back({.input = static_cast<const std::byte*>(source->buf),
                             .output = static_cast<std::byte*>(target->buf),
                             .dtype = static_cast<kernels::DataType>(source_dtype),
                             .input_count = count,
                             .output_count = count});
  return true;
}

bool Arrays::add_apart(py::handle input, py::handle output, int dtype) {
  if (request_.arrays.size() == count_max_ || (input.is_none() && output.is_none())) return false;
  engine::Array array;
  int input_dtype = dtype;
  int output_dtype = dtype;
  if (!input.is_none()) {
    const Py_buffer* source = hold(input, false, input_dtype);
    if (source == nullptr) return false;
    array.input = static_cast<const std::byte*>(source->buf);
    array.input_count = static_cast<std::uint64_t>(source->len / source->itemsize);
  }
  if (!output.is_none()) {
    const Py_buffer* target = hold(output, true, output_dtype);
    const bool alike = target != nullptr && (input.is_none() || output_dtype == input_dtype);
    if (!alike) {
      if (target != nullptr) buffers_.release_newest();
      if (!input.is_none()) buffers_.release_newest();
      return false;
    }
    array.output = static_cast<std::byte*>(target->buf);
    array.output_count = static_cast<std::uint64_t>(target->len / target->itemsize);
  }
  array.dtype = static_cast<kernels::DataType>(input.is_none() ? output_dtype : input_dtype);
  request_.arrays.push_back(array);
  return true;
}

void register_arrays(py::module_& module) {
  py::class_<Arrays>(module, "Arrays")
      .def(py::init<std::size_t, Rank>(), py::arg("count_max"), py::arg("world") = 0)
      .def("add", &Arrays::add, py::arg("input"), py::arg("output"), py::arg("dtype"))
      .def("add_apart", &Arrays::add_apart, py::arg("input"), py::arg("output"), py::arg("dtype"))
      .def("cut", &Arrays::cut, py::arg("shares"))
      .def("cut_both", &Arrays::cut_both, py::arg("sends"), py::arg("receives"));
}

}  // namespace pyccl::bindings
