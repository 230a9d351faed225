// The outer step for Python, on arrays of f32 that lie without gaps.
#include <pybind11/pybind11.h>

#include <limits>
#include <span>
#include <string>

#include "bindings/convert_py.hpp"
#include "bindings/register_py.hpp"
#include "kernels/outer.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

py::buffer_info floats(const py::buffer& given, const char* name, bool writable) {
  py::buffer_info info = given.request(writable);
  const bool dense = info.ndim == 1 && info.strides[0] == info.itemsize;
  if (!info.item_type_is_equivalent_to<float>() || !(dense || info.size == 0)) {
    throw_status(Status(Code::invalid_argument,
                        std::string(name) + " must be one row of float32 without gaps"));
  }
  return info;
}

std::span<float> numbers(const py::buffer_info& info) {
  return {static_cast<float*>(info.ptr), static_cast<std::size_t>(info.size)};
}

void outer_step(const py::buffer& params, const py::buffer& momentum, const py::buffer& gradient,
                float rate, float factor, bool nesterov, float divisor, float limit) {
  const py::buffer_info into = floats(params, "params", true);
  const py::buffer_info moved = floats(momentum, "momentum", true);
  const py::buffer_info given = floats(gradient, "gradient", false);
  if (into.size != moved.size || into.size != given.size) {
    throw_status(Status(Code::invalid_argument, "params, momentum and gradient have " +
                                                    std::to_string(into.size) + ", " +
                                                    std::to_string(moved.size) + " and " +
                                                    std::to_string(given.size) + " numbers"));
  }
  const py::gil_scoped_release unlocked;
  kernels::outer_step(
      numbers(into), numbers(moved), numbers(given),
      {.rate = rate, .momentum = factor, .nesterov = nesterov, .divisor = divisor, .limit = limit});
}

}  // namespace

void register_outer(py::module_& module) {
  module.def("outer_step", outer_step, py::arg("params"), py::arg("momentum"), py::arg("gradient"),
             py::arg("rate"), py::arg("factor"), py::arg("nesterov"), py::arg("divisor") = 1.0F,
             py::arg("limit") = std::numeric_limits<float>::infinity());
}

}  // namespace pyccl::bindings
