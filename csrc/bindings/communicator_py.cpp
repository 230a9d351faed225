// runtime::Communicator for Python, and the list of calls that its caller may have forgotten.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays_py.hpp"
#include "bindings/convert_py.hpp"
#include "bindings/log_py.hpp"
#include "bindings/register_py.hpp"
#include "bindings/shared_state_py.hpp"
#include "bindings/work_py.hpp"
#include "runtime/communicator.hpp"
#include "runtime/subgroup.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

// What a call asks for, apart from its arrays. Checked in Python, which keeps and reuses it.
struct Settings {
  int collective = 0;
  int op = 0;
  double weight = 1.0;
  std::uint32_t tag = 0;
  int on_loss = 0;
  int algorithm = 0;
  Rank rank = -1;  // of the root
  engine::Quantization quantization;

  void quantize(int codec, std::uint32_t block, int scale, int partial, int rounding,
                std::uint64_t seed, bool zstd) {
    quantization = {
        {static_cast<kernels::Codec>(codec), block, static_cast<kernels::DataType>(scale)},
        static_cast<kernels::DataType>(partial),
        static_cast<kernels::Rounding>(rounding),
        seed,
        zstd};
  }

  void apply(engine::Request& request) const {
    request.kind = static_cast<collectives::Kind>(collective);
    request.op = static_cast<kernels::ReduceOp>(op);
    request.weight = weight;
    request.tag = tag;
    request.on_loss = static_cast<engine::OnLoss>(on_loss);
    request.algorithm = static_cast<collectives::Algorithm>(algorithm);
    request.root = rank;
    request.quantization = quantization;
  }
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

  // Those that return an OpenCall have waited for its end, except call and call_pair without
  // `waits`.
  OpenCallPtr admission() { return finished(communicator_->admission()); }
  OpenCallPtr call(Arrays& arrays, const Settings& settings, const runtime::Subgroup* subgroup,
                   double timeout, bool waits) {
    engine::Request request = arrays.take_request();
    settings.apply(request);
    if (subgroup != nullptr) subgroup->apply(request);
    return start(std::move(request), arrays, timeout, waits);
  }
  // With the member that has that rank at present; a receiver may say runtime::any_source.
  OpenCallPtr call_pair(Arrays& arrays, const Settings& settings, int role, Rank other,
                        const runtime::Subgroup* subgroup, double timeout, bool waits) {
    engine::Request request = arrays.take_request();
    settings.apply(request);
    const Status asked =
        runtime::ask_pair(request, communicator_->view(), subgroup, communicator_->peer(),
                          static_cast<runtime::PairRole>(role), other);
    if (!asked.ok()) throw_status(asked);
    return start(std::move(request), arrays, timeout, waits);
  }
  OpenCallPtr update(double timeout) {
    return finished(communicator_->update(to_duration(timeout)));
  }
  OpenCallPtr leave(double timeout) { return finished(communicator_->leave(to_duration(timeout))); }
  py::tuple sync(StateFace& state, int strategy, bool expect_next, double timeout,
                 const py::object& progress) {
    return state.sync(*communicator_, strategy, expect_next, timeout, progress);
  }
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
    py::object end = py::none();
    if (view.ended) end = to_tuple(view.end_reason);
    return py::make_tuple(to_tuple(view.epoch), view.rank, to_tuple(view.peers), end);
  }
  // (rank, number of members)
  py::tuple place() const {
    const runtime::ViewSnapshot view = communicator_->view();
    return py::make_tuple(view.rank, view.peers.size());
  }
  std::size_t members_most() const { return communicator_->view().members_most; }
  std::size_t groups() const { return communicator_->view().groups; }
  runtime::Subgroup subgroup(const std::vector<Rank>& ranks, const std::string& name,
                             const runtime::Subgroup* of) const {
    auto made = runtime::subgroup_of(of != nullptr ? of->members : communicator_->view().peers,
                                     communicator_->peer(), ranks, name);
    if (!made.ok()) throw_status(made.status());
    return made.take();
  }
  bool is_valid(const runtime::Subgroup& subgroup) const {
    const runtime::ViewSnapshot view = communicator_->view();
    return !view.ended && subgroup.within(view.peers);
  }
  std::string peer() const { return to_string(communicator_->peer()); }
  std::string address() const { return communicator_->address(); }

 private:
  OpenCallPtr start(engine::Request request, Arrays& arrays, double timeout, bool waits) {
    // The engine would refuse it too, but only the waiting caller would hear of it.
    if (const Status refusal = engine::check(request); !refusal.ok()) throw_status(refusal);
    auto work = communicator_->call(std::move(request), to_duration(timeout),
                                    waits ? runtime::Then::waits : runtime::Then::goes_on);
    auto call = track(std::move(work), arrays.take_buffers());
    if (waits) finish(*call, *communicator_);
    return call;
  }

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
                                       const py::dict& limits, int transport, std::uint32_t spin_us,
                                       std::shared_ptr<LogLines> log) {
  runtime::ConnectOptions options;
  options.coordinator = coordinator;
  options.group = group;
  options.role = static_cast<protocol::Role>(role);
  options.connections = connections;
  options.listen = std::move(listen);
  options.advertise = std::move(advertise);
  options.timeout = to_duration(timeout);
  options.timing = to_timing(limits);
  options.transport = static_cast<transport::Choice>(transport);
  options.spin = std::chrono::microseconds(spin_us);
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
  py::class_<Settings>(module, "Settings")
      .def(py::init<int, int, double, std::uint32_t, int, int, Rank>(), py::arg("collective"),
           py::arg("op"), py::arg("weight"), py::arg("tag"), py::arg("on_loss"),
           py::arg("algorithm"), py::arg("rank"))
      .def("quantize", &Settings::quantize, py::arg("codec"), py::arg("block"), py::arg("scale"),
           py::arg("partial"), py::arg("rounding"), py::arg("seed"), py::arg("zstd"));
  py::class_<runtime::Subgroup>(module, "Subgroup")
      .def("rank", [](const runtime::Subgroup& subgroup) { return subgroup.rank; })
      .def("size", [](const runtime::Subgroup& subgroup) { return subgroup.members.size(); })
      .def("peers", [](const runtime::Subgroup& subgroup) { return to_tuple(subgroup.members); });
  py::class_<CommunicatorFace>(module, "Communicator")
      .def("admission", &CommunicatorFace::admission)
      .def("call", &CommunicatorFace::call, py::arg("arrays"), py::arg("settings"),
           py::arg("subgroup"), py::arg("timeout"), py::arg("waits"))
      .def("call_pair", &CommunicatorFace::call_pair, py::arg("arrays"), py::arg("settings"),
           py::arg("role"), py::arg("other"), py::arg("subgroup"), py::arg("timeout"),
           py::arg("waits"))
      .def("update", &CommunicatorFace::update, py::arg("timeout"))
      .def("leave", &CommunicatorFace::leave, py::arg("timeout"))
      .def("sync", &CommunicatorFace::sync, py::arg("state"), py::arg("strategy"),
           py::arg("expect_next"), py::arg("timeout"), py::arg("progress"))
      .def("cancel", &CommunicatorFace::cancel, py::arg("work"))
      .def("close", &CommunicatorFace::close)
      .def("view", &CommunicatorFace::view)
      .def("groups", &CommunicatorFace::groups)
      .def("place", &CommunicatorFace::place)
      .def("members_most", &CommunicatorFace::members_most)
      .def("subgroup", &CommunicatorFace::subgroup, py::arg("ranks"), py::arg("name"),
           py::arg("of"))
      .def("is_valid", &CommunicatorFace::is_valid, py::arg("subgroup"))
      .def("peer", &CommunicatorFace::peer)
      .def("address", &CommunicatorFace::address);
  module.def("open", &open, py::kw_only(), py::arg("coordinator"), py::arg("group"),
             py::arg("role"), py::arg("connections"), py::arg("listen"), py::arg("advertise"),
             py::arg("timeout"), py::arg("limits"), py::arg("transport"), py::arg("spin_us"),
             py::arg("log"));
}

}  // namespace pyccl::bindings
