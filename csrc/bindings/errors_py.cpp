// How a Status becomes a Python exception, and the other small conversions. The tree of exceptions
// stands in pyccl/errors.py: Python is where people read it.
#include <algorithm>
#include <string>
#include <utility>

#include "bindings/convert_py.hpp"

namespace py = pybind11;

namespace pyccl::bindings {

Duration to_duration(double seconds) {
  // A century: far beyond any use, far from an overflow of 64 bits.
  constexpr double seconds_max = 3.2e9;
  // Written so that not-a-number counts as nothing.
  if (!(seconds > 0.0)) return Duration::zero();
  return Duration(static_cast<std::int64_t>(std::min(seconds, seconds_max) * 1e9));
}

protocol::Timing to_timing(const py::dict& limits) {
  protocol::Timing timing;
  const std::pair<const char*, Duration*> fields[] = {
      {"heartbeat_limit", &timing.heartbeat_limit},
      {"reconnect_grace", &timing.reconnect_grace},
      {"recovery_limit", &timing.recovery_limit},
      {"prepare_limit", &timing.prepare_limit},
      {"link_limit", &timing.link_limit},
      {"decision_limit", &timing.decision_limit},
      {"coordinator_limit", &timing.coordinator_limit},
  };
  for (const auto& [key, value] : limits) {
    const auto name = py::cast<std::string>(key);
    const auto* field = std::find_if(std::begin(fields), std::end(fields),
                                     [&](const auto& one) { return name == one.first; });
    if (field == std::end(fields)) throw py::key_error("no limit is called " + name);
    *field->second = to_duration(py::cast<double>(value));
  }
  return timing;
}

py::str to_str(std::string_view text) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

py::tuple to_tuple(const Status& status) {
  py::object peer = py::none();
  if (status.peer()) peer = py::str(to_string(status.peer()));
  return py::make_tuple(static_cast<int>(status.code()), to_str(status.reason()), peer);
}

py::tuple to_tuple(Epoch epoch) { return py::make_tuple(epoch.incarnation, epoch.counter); }

py::tuple to_tuple(const std::vector<PeerId>& peers) {
  py::tuple texts(peers.size());
  for (std::size_t i = 0; i < peers.size(); ++i) texts[i] = to_string(peers[i]);
  return texts;
}

void throw_status(const Status& status) {
  const py::object error =
      py::module_::import("pyccl.errors").attr("from_status")(*to_tuple(status));
  PyErr_SetObject(py::type::handle_of(error).ptr(), error.ptr());
  throw py::error_already_set();
}

}  // namespace pyccl::bindings
