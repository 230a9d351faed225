// Work for Python; see work_py.hpp.
#include "bindings/work_py.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "bindings/convert_py.hpp"
#include "bindings/log_py.hpp"
#include "bindings/register_py.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

// Keyboard interrupts are promised within 200 ms; a blocking call also needs time to cancel.
constexpr Duration slice_max = 50ms;
// A moment, so that the arrays change no more when the caller has them back.
constexpr double cancel_seconds = 0.1;

std::atomic<bool> exiting = false;
thread_local bool ends_the_program = false;

// What became of a call: (why it failed or None, the fields of pyccl.OperationInfo in their order);
// None if it has not ended.
py::object outcome(const OpenCall& call) {
  if (!call.work->done()) return py::none();
  const engine::OperationInfo& info = call.work->info();
  py::object failure = py::none();
  py::object source = py::none();
  if (info.source >= 0) source = py::int_(info.source);
  if (!call.work->status().ok()) failure = to_tuple(call.work->status());
  return py::make_tuple(
      failure, py::make_tuple(info.world_size, info.members, to_tuple(info.epoch), info.attempts,
                              info.bytes_sent, info.bytes_received, info.seconds, info.algorithm,
                              info.weight_sum, info.peers_pending, info.wire_ratio,
                              info.bytes_packed, info.quantization_step, source));
}

}  // namespace

void park_if_exiting() {
  while (exiting.load(std::memory_order_relaxed) && !ends_the_program) ::pause();
}

bool wait(OpenCall& call, double seconds, bool interruptible) {
  const bool bounded = seconds >= 0.0;
  Duration left = bounded ? to_duration(seconds) : Duration::max();
  while (!call.work->done()) {
    const Duration slice = std::min(left, slice_max);
    // By hand: a thread that the interpreter ends here would be unwound out of a destructor.
    PyThreadState* const state = PyEval_SaveThread();
    const bool ended = call.work->wait(slice);
    park_if_exiting();
    PyEval_RestoreThread(state);
    if (ended) break;
    if (interruptible && PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (bounded) left -= slice;
    if (left <= Duration::zero()) return call.work->done();
  }
  call.buffers.release();
  return true;
}

void finish(OpenCall& call, runtime::Communicator& communicator) {
  try {
    wait(call, -1.0, true);
  } catch (py::error_already_set&) {
    communicator.cancel(call.work);
    wait(call, cancel_seconds, false);
    throw;
  }
}

void register_work(py::module_& module) {
  module.def("begin_exit", [] { ends_the_program = exiting = true; });
  py::class_<OpenCall, OpenCallPtr>(module, "Work")
      .def("wait", &wait, py::arg("seconds"), py::arg("interruptible") = true)
      .def("done", [](const OpenCall& call) { return call.work->done(); })
      .def("outcome", &outcome)
      .def(
          "notify", [](const OpenCall& call, int fd) { call.work->on_done([fd] { ring(fd); }); },
          py::arg("fd"));
}

}  // namespace pyccl::bindings
