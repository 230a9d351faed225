// runtime::Coordinator for Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/convert_py.hpp"
#include "bindings/log_py.hpp"
#include "bindings/register_py.hpp"
#include "runtime/coordinator.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

class CoordinatorFace {
 public:
  explicit CoordinatorFace(std::unique_ptr<runtime::Coordinator> coordinator)
      : coordinator_(std::move(coordinator)) {}
  // Stopping waits for the reactor's thread.
  ~CoordinatorFace() {
    const py::gil_scoped_release unlocked;
    coordinator_.reset();
  }

  std::string address() const { return coordinator_->address(); }
  std::uint32_t incarnation() const { return coordinator_->incarnation(); }
  std::size_t members() const { return coordinator_->members(); }
  void stop() {
    const py::gil_scoped_release unlocked;
    coordinator_->stop();
  }

 private:
  std::unique_ptr<runtime::Coordinator> coordinator_;
};

std::unique_ptr<CoordinatorFace> start(const std::string& bind, std::optional<std::string> state,
                                       const py::dict& limits, std::shared_ptr<LogLines> log) {
  runtime::CoordinatorSettings settings;
  settings.bind = bind;
  settings.state_path = std::move(state);
  settings.timing = to_timing(limits);
  settings.log = sink_for(std::move(log));
  auto started = [&] {
    const py::gil_scoped_release unlocked;
    return runtime::Coordinator::start(settings);
  }();
  if (!started.ok()) throw_status(started.status());
  return std::make_unique<CoordinatorFace>(started.take());
}

}  // namespace

void register_coordinator(py::module_& module) {
  py::class_<CoordinatorFace>(module, "Coordinator")
      .def("address", &CoordinatorFace::address)
      .def("incarnation", &CoordinatorFace::incarnation)
      .def("members", &CoordinatorFace::members)
      .def("stop", &CoordinatorFace::stop);
  module.def("start_coordinator", &start, py::kw_only(), py::arg("bind"), py::arg("state"),
             py::arg("limits"), py::arg("log"));
}

}  // namespace pyccl::bindings
