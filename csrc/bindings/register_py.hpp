// What each file of the extension module adds to it; module.cpp calls them in this order.
#pragma once

#include <pybind11/pybind11.h>

namespace pyccl::bindings {

void register_enums(pybind11::module_& module);
void register_log(pybind11::module_& module);
void register_dlpack(pybind11::module_& module);
void register_arrays(pybind11::module_& module);
void register_quantize(pybind11::module_& module);
void register_outer(pybind11::module_& module);
void register_work(pybind11::module_& module);
void register_shared_state(pybind11::module_& module);
void register_communicator(pybind11::module_& module);
void register_coordinator(pybind11::module_& module);

}  // namespace pyccl::bindings
