// pyccl_communicator: a runtime::Communicator behind a handle; membership, and the calls that wait.
#include <chrono>
#include <utility>

#include "api/handles.hpp"

using pyccl::Duration;
using pyccl::Result;
using pyccl::Status;
using pyccl::api::guarded;
using pyccl::api::refuse;
using pyccl::api::report;

namespace {

// The runtime's options from a caller's.
Result<pyccl::runtime::ConnectOptions> options_from(const char* coordinator,
                                                    const pyccl_connect_options& given) {
  const auto invalid = [](const char* why) {
    return Status(pyccl::Code::invalid_argument, std::string("pyccl_connect: ") + why);
  };
  if (given.group == nullptr) return invalid("group is NULL");
  const int role = pyccl::api::number_of(given.role);
  if (role != PYCCL_WORKER && role != PYCCL_MIRROR) return invalid("unknown role");
  pyccl::runtime::ConnectOptions options;
  options.coordinator = coordinator;
  options.group = given.group;
  options.role = static_cast<pyccl::protocol::Role>(role);
  options.connections = given.connections;
  if (given.listen != nullptr) options.listen = given.listen;
  if (given.advertise != nullptr) options.advertise = given.advertise;
  const auto timeout = pyccl::api::timeout_of(given.timeout, PYCCL_CONNECT_TIMEOUT);
  if (!timeout.ok()) return timeout.status();
  options.timeout = timeout.value();
  for (const auto& [given_limit, limit] :
       {std::pair{given.heartbeat_limit, &options.timing.heartbeat_limit},
        std::pair{given.coordinator_limit, &options.timing.coordinator_limit}}) {
    const double usual = std::chrono::duration<double>(*limit).count();
    const auto meant = pyccl::api::timeout_of(given_limit, usual);
    if (!meant.ok()) return meant.status();
    *limit = meant.value();
  }
  const int transport = pyccl::api::number_of(given.transport);
  if (transport < 0 || transport >= PYCCL_TRANSPORT_COUNT) return invalid("unknown transport");
  options.transport = static_cast<pyccl::transport::Choice>(transport);
  options.spin = std::chrono::microseconds(given.spin_us);
  options.log = pyccl::api::sink_of(given.log, given.log_context);
  return options;
}

// The calls that concern all members.
template <class Start>
pyccl_code run(pyccl_communicator* communicator, double timeout, const std::string& name,
               Start start) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse((name + ": communicator is NULL").c_str());
    if (communicator->subgroup) return refuse((name + ": a subgroup can't").c_str());
    const auto limit = pyccl::api::timeout_of(timeout, PYCCL_OPERATION_TIMEOUT);
    if (!limit.ok()) return report(limit.status());
    // Held over the wait, should another thread free the handle meanwhile.
    const auto shared = communicator->shared;
    const auto work = start(*shared->communicator, limit.value());
    pyccl::api::wait(*work);
    return pyccl::api::conclude(*shared, *work, true, nullptr);
  });
}

// Why the handle is of no use any more, if so.
Status standing(const pyccl_communicator& handle, const pyccl::runtime::ViewSnapshot& view) {
  if (view.ended) return view.end_reason;
  if (handle.subgroup && !handle.subgroup->within(view.peers)) {
    return {pyccl::Code::peer_lost, "a member of this subgroup is not in the view any more"};
  }
  return {};
}

}  // namespace

extern "C" {

pyccl_connect_options pyccl_connect_options_default(void) {
  return {"default", PYCCL_WORKER,         4, nullptr, nullptr, -1.0, -1.0,
          -1.0,      PYCCL_TRANSPORT_AUTO, 0, nullptr, nullptr};
}

pyccl_code pyccl_connect(const char* coordinator, const pyccl_connect_options* options,
                         pyccl_communicator** communicator) {
  return guarded([&]() -> pyccl_code {
    if (coordinator == nullptr) return refuse("pyccl_connect: coordinator is NULL");
    if (communicator == nullptr) return refuse("pyccl_connect: communicator is NULL");
    const auto checked =
        options_from(coordinator, options != nullptr ? *options : pyccl_connect_options_default());
    if (!checked.ok()) return report(checked.status());
    auto opened = pyccl::runtime::Communicator::open(checked.value());
    if (!opened.ok()) return report(opened.status());
    auto shared = std::make_shared<pyccl::api::Communicator>();
    shared->communicator = opened.take();
    // On failure the communicator goes with `shared`: nothing is left behind.
    const Status admitted = pyccl::api::wait(*shared->communicator->admission());
    if (!admitted.ok()) return report(admitted);
    *communicator = new pyccl_communicator{std::move(shared), std::nullopt};
    return PYCCL_OK;
  });
}

pyccl_code pyccl_get_view(const pyccl_communicator* communicator, pyccl_view* view) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_get_view: communicator is NULL");
    if (view == nullptr) return refuse("pyccl_get_view: view is NULL");
    const auto& runtime = *communicator->shared->communicator;
    const auto snapshot = runtime.view();
    if (const Status status = standing(*communicator, snapshot); !status.ok())
      return report(status);
    const auto& subgroup = communicator->subgroup;
    view->peer = runtime.peer().value;
    view->rank = subgroup ? subgroup->rank : snapshot.rank;
    view->world_size =
        static_cast<std::int32_t>(subgroup ? subgroup->members.size() : snapshot.peers.size());
    view->epoch_incarnation = snapshot.epoch.incarnation;
    view->epoch_counter = snapshot.epoch.counter;
    return PYCCL_OK;
  });
}

int pyccl_peers_pending(const pyccl_communicator* communicator) {
  if (communicator == nullptr) return 0;
  return communicator->shared->peers_pending.load(std::memory_order_relaxed) ? 1 : 0;
}

pyccl_code pyccl_update(pyccl_communicator* communicator, double timeout) {
  return run(communicator, timeout, "pyccl_update",
             [](auto& runtime, Duration limit) { return runtime.update(limit); });
}

pyccl_code pyccl_leave(pyccl_communicator* communicator, double timeout) {
  return run(communicator, timeout, "pyccl_leave",
             [](auto& runtime, Duration limit) { return runtime.leave(limit); });
}

pyccl_code pyccl_subgroup(pyccl_communicator* communicator, const int32_t* ranks, size_t rank_count,
                          const char* name, pyccl_communicator** subgroup) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_subgroup: communicator is NULL");
    if (ranks == nullptr && rank_count > 0) return refuse("pyccl_subgroup: ranks is NULL");
    if (subgroup == nullptr) return refuse("pyccl_subgroup: subgroup is NULL");
    const auto& runtime = *communicator->shared->communicator;
    const auto view = runtime.view();
    if (const Status status = standing(*communicator, view); !status.ok()) return report(status);
    const auto& outer = communicator->subgroup;
    auto made =
        pyccl::runtime::subgroup_of(outer ? outer->members : view.peers, runtime.peer(),
                                    {ranks, ranks + rank_count}, name != nullptr ? name : "");
    if (!made.ok()) return report(made.status());
    *subgroup = new pyccl_communicator{communicator->shared, made.take()};
    return PYCCL_OK;
  });
}

void pyccl_close(pyccl_communicator* communicator) {
  if (communicator != nullptr && !communicator->subgroup) {
    communicator->shared->communicator->close();
  }
}

void pyccl_free(pyccl_communicator* communicator) {
  // Works and subgroups may hold the shared part; its thread ends here all the same.
  pyccl_close(communicator);
  delete communicator;
}

}  // extern "C"
