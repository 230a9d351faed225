// See shared_state_py.hpp.
#include "bindings/shared_state_py.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/convert_py.hpp"
#include "bindings/register_py.hpp"
#include "bindings/work_py.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

// Python's lock, let go by hand: a thread that the interpreter ends where it asks for the lock
// would be unwound out of a destructor.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  void lock() {
    park_if_exiting();
    PyEval_RestoreThread(state_);
  }
  void unlock() { state_ = PyEval_SaveThread(); }

 private:
  PyThreadState* state_;
};

// A sync that runs holds the state's lock and asks for Python's: who wants the former must not wait
// for it with the latter in hand.
template <class Body>
auto without_lock(Body body) {
  Unlocked unlocked;
  try {
    auto result = body();
    unlocked.lock();
    return result;
  } catch (...) {
    unlocked.lock();
    throw;
  }
}

void check(const Status& status) {
  if (!status.ok()) throw_status(status);
}

// A peer's rank at the end of a sync; None if it is lost.
py::object rank_in(const std::vector<PeerId>& peers, PeerId peer) {
  const auto found = std::ranges::find(peers, peer);
  if (found == peers.end()) return py::none();
  return py::int_(found - peers.begin());
}

py::tuple to_tuple(const engine::SyncInfo& info) {
  py::list sources;
  for (const auto& source : info.sources) {
    sources.append(
        py::make_tuple(rank_in(info.peers, source.peer), to_string(source.peer), source.bytes));
  }
  py::list behind;
  for (const auto& each : info.behind) {
    behind.append(py::make_tuple(rank_in(info.peers, each.peer), to_string(each.peer),
                                 each.revision, each.drifted));
  }
  py::list refuted;
  for (const PeerId peer : info.refuted) {
    refuted.append(py::make_tuple(rank_in(info.peers, peer), to_string(peer)));
  }
  return py::make_tuple(info.revision, to_string(info.digest), info.bytes_sent, info.bytes_received,
                        info.blocks_fetched, info.bytes_fetched, sources, behind, refuted,
                        info.attempts, info.seconds, info.peers_pending);
}

}  // namespace

StateFace::StateFace(const py::list& tensors, std::uint64_t revision, bool strict) {
  buffers_.reserve(tensors.size());
  std::vector<engine::Tensor> described;
  for (const py::handle each : tensors) {
    const auto fields = py::cast<py::tuple>(each);
    engine::Tensor tensor;
    tensor.name = py::cast<std::string>(fields[0]);
    tensor.dtype = py::cast<std::string>(fields[1]);
    tensor.shape = py::cast<std::vector<std::uint64_t>>(fields[2]);
    const Py_buffer* buffer = buffers_.hold(fields[3], PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
    if (buffer == nullptr) throw py::value_error("no writable buffer: " + tensor.name);
    tensor.memory = static_cast<std::byte*>(buffer->buf);
    tensor.bytes = static_cast<std::uint64_t>(buffer->len);
    described.push_back(std::move(tensor));
  }
  auto made = engine::SharedState::make(std::move(described), strict);
  if (!made.ok()) throw_status(made.status());
  state_ = std::make_unique<runtime::SharedState>(made.take());
  check(state_->set_revision(revision));
}

std::uint64_t StateFace::revision() const {
  return without_lock([this] { return state_->revision(); });
}

void StateFace::set_revision(std::uint64_t revision) {
  check(without_lock([&] { return state_->set_revision(revision); }));
}

void StateFace::restored(std::uint64_t revision) {
  check(without_lock([&] { return state_->restored(revision); }));
}

void StateFace::spoil() {
  check(without_lock([this] { return state_->spoil(); }));
}

std::string StateFace::digest() {
  const auto digest = without_lock([this] { return state_->digest(); });
  check(digest.status());
  return to_string(digest.value());
}

py::tuple StateFace::void_tensors() const {
  const auto names = without_lock([this] { return state_->void_tensors(); });
  py::tuple texts(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) texts[i] = to_str(names[i]);
  return texts;
}

py::tuple StateFace::sync(runtime::Communicator& communicator, int strategy, bool expect_next,
                          double timeout, const py::object& progress) {
  engine::SyncOptions options;
  options.strategy = static_cast<protocol::Strategy>(strategy);
  options.expect_next = expect_next;
  engine::SyncInfo info;
  std::exception_ptr raised;
  std::uint64_t told = 0;
  std::optional<Unlocked> unlocked;
  const auto watch = [&](std::uint64_t moved, std::uint64_t to_move) {
    unlocked->lock();
    bool goes_on = true;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!progress.is_none() && to_move > 0 && (moved > told || told == 0)) {
        told = std::max<std::uint64_t>(moved, 1);
        progress(moved, to_move);
      }
    } catch (...) {
      raised = std::current_exception();
      goes_on = false;
    }
    unlocked->unlock();
    return goes_on;
  };
  Status status;
  unlocked.emplace();
  try {
    status = state_->sync(communicator, options, to_duration(timeout), watch, info);
  } catch (...) {
    raised = std::current_exception();
  }
  unlocked->lock();
  if (raised) std::rethrow_exception(raised);
  py::object failure = py::none();
  if (!status.ok()) failure = bindings::to_tuple(status);
  return py::make_tuple(failure, to_tuple(info));
}

void register_shared_state(py::module_& module) {
  py::class_<StateFace>(module, "SharedState")
      .def(py::init<const py::list&, std::uint64_t, bool>(), py::arg("tensors"),
           py::arg("revision"), py::arg("strict"))
      .def_property("revision", &StateFace::revision, &StateFace::set_revision)
      .def_property_readonly("bytes", &StateFace::bytes)
      .def("digest", &StateFace::digest)
      .def("restored", &StateFace::restored, py::arg("revision"))
      .def("spoil", &StateFace::spoil)
      .def("void_tensors", &StateFace::void_tensors);
}

}  // namespace pyccl::bindings
