// runtime::Communicator for Python, and the list of calls that its caller may have forgotten.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays_py.hpp"
#include "bindings/convert_py.hpp"
#include "bindings/log_py.hpp"
#include "bindings/register_py.hpp"
#include "bindings/work_py.hpp"
#include "runtime/communicator.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

struct ReduceSettings {
  int op = 0;
  double weight = 1.0;
  std::uint32_t tag = 0;
  int on_loss = 0;
  int algorithm = 0;
};

class CommunicatorFace {
 public:
  explicit CommunicatorFace(std::unique_ptr<runtime::Communicator> communicator)
      : communicator_(std::move(communicator)) {}
  // Closing waits for the reactor's thread. After it no call is open, so what they held may go.
  ~CommunicatorFace() {
    const py::gil_scoped_release unlocked;
    communicator_.reset();
  }

  // Those that return an OpenCall have waited for its end, except all_reduce without `waits`.
  OpenCallPtr admission() { return finished(communicator_->admission()); }
  OpenCallPtr all_reduce(Arrays& arrays, const ReduceSettings& settings, double timeout,
                         bool waits) {
    engine::AllReduceRequest request;
    request.arrays = arrays.take_arrays();
    request.op = static_cast<kernels::ReduceOp>(settings.op);
    request.weight = settings.weight;
    request.tag = settings.tag;
    request.on_loss = static_cast<engine::OnLoss>(settings.on_loss);
    request.algorithm = static_cast<pyccl_algorithm>(settings.algorithm);
    // The engine would refuse it too, but only the waiting caller would hear of it.
    if (const Status refusal = engine::check(request); !refusal.ok()) throw_status(refusal);
    auto work = communicator_->all_reduce(std::move(request), to_duration(timeout),
                                          waits ? runtime::Then::waits : runtime::Then::goes_on);
    auto call = track(std::move(work), arrays.take_buffers());
    if (waits) finish(*call, *communicator_);
    return call;
  }
  OpenCallPtr barrier(std::uint32_t tag, double timeout) {
    return finished(communicator_->barrier(tag, to_duration(timeout), runtime::Then::waits));
  }
  OpenCallPtr update(double timeout) {
    return finished(communicator_->update(to_duration(timeout)));
  }
  OpenCallPtr leave(double timeout) { return finished(communicator_->leave(to_duration(timeout))); }
  void cancel(const OpenCall& call) { communicator_->cancel(call.work); }
  void close() {
    {
      const py::gil_scoped_release unlocked;
      communicator_->close();
    }
    forget_ended();
  }

  // (epoch, rank, peers, status of the end or None)
  py::tuple view() const {
    const runtime::ViewSnapshot view = communicator_->view();
    py::tuple peers(view.peers.size());
    for (std::size_t i = 0; i < view.peers.size(); ++i) peers[i] = to_string(view.peers[i]);
    py::object end = py::none();
    if (view.ended) end = to_tuple(view.end_reason);
    return py::make_tuple(to_tuple(view.epoch), view.rank, peers, end);
  }
  std::string peer() const { return to_string(communicator_->peer()); }
  std::string address() const { return communicator_->address(); }

 private:
  OpenCallPtr finished(runtime::WorkPtr work) {
    auto call = track(std::move(work), {});
    finish(*call, *communicator_);
    return call;
  }

  OpenCallPtr track(runtime::WorkPtr work, HeldBuffers buffers) {
    forget_ended();
    auto call = std::make_shared<OpenCall>(std::move(work), std::move(buffers));
    open_.push_back(call);
    return call;
  }

  // Taken out of the list before their buffers go: releasing one may run Python code, and that may
  // call this communicator.
  void forget_ended() {
    std::vector<OpenCallPtr> ended;
    std::erase_if(open_, [&](const OpenCallPtr& call) {
      if (call->work->done()) ended.push_back(call);
      return call->work->done();
    });
    for (const OpenCallPtr& call : ended) call->buffers.release();
  }

  std::unique_ptr<runtime::Communicator> communicator_;
  std::vector<OpenCallPtr> open_;  // Python's lock protects it
};

std::unique_ptr<CommunicatorFace> open(const std::string& coordinator, const std::string& group,
                                       int role, std::uint32_t connections,
                                       std::optional<std::string> listen,
                                       std::optional<std::string> advertise, double timeout,
                                       const py::dict& limits, std::shared_ptr<LogLines> log) {
  runtime::ConnectOptions options;
  options.coordinator = coordinator;
  options.group = group;
  options.role = static_cast<protocol::Role>(role);
  options.connections = connections;
  options.listen = std::move(listen);
  options.advertise = std::move(advertise);
  options.timeout = to_duration(timeout);
  options.timing = to_timing(limits);
  options.log = sink_for(std::move(log));
  // Names are resolved in here, which may take its time.
  auto opened = [&] {
    const py::gil_scoped_release unlocked;
    return runtime::Communicator::open(options);
  }();
  if (!opened.ok()) throw_status(opened.status());
  return std::make_unique<CommunicatorFace>(opened.take());
}

}  // namespace

void register_communicator(py::module_& module) {
  py::class_<ReduceSettings>(module, "ReduceSettings")
      .def(py::init<int, double, std::uint32_t, int, int>(), py::arg("op"), py::arg("weight"),
           py::arg("tag"), py::arg("on_loss"), py::arg("algorithm"));
  py::class_<CommunicatorFace>(module, "Communicator")
      .def("admission", &CommunicatorFace::admission)
      .def("all_reduce", &CommunicatorFace::all_reduce, py::arg("arrays"), py::arg("settings"),
           py::arg("timeout"), py::arg("waits"))
      .def("barrier", &CommunicatorFace::barrier, py::arg("tag"), py::arg("timeout"))
      .def("update", &CommunicatorFace::update, py::arg("timeout"))
      .def("leave", &CommunicatorFace::leave, py::arg("timeout"))
      .def("cancel", &CommunicatorFace::cancel, py::arg("work"))
      .def("close", &CommunicatorFace::close)
      .def("view", &CommunicatorFace::view)
      .def("peer", &CommunicatorFace::peer)
      .def("address", &CommunicatorFace::address);
  module.def("open", &open, py::kw_only(), py::arg("coordinator"), py::arg("group"),
             py::arg("role"), py::arg("connections"), py::arg("listen"), py::arg("advertise"),
             py::arg("timeout"), py::arg("limits"), py::arg("log"));
}

}  // namespace pyccl::bindings
